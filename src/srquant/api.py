"""What the command line does, in Python: quantize, evaluate, upscale, export."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import torch
from pydantic import Field

from srquant.engines import TARGETS
from srquant.engines.exported import Exported
from srquant.fetching import resolve
from srquant.images.bicubic import Border
from srquant.images.evaluation import Scores
from srquant.images.evaluation import evaluate as _evaluate
from srquant.images.finding import find_pairs
from srquant.images.formats.table import Target, named
from srquant.images.perceptual import further_scores
from srquant.images.tiling import SMALLEST_TILE, UNBOUNDED_OVERLAP, Tiling
from srquant.images.upscaling import Done, Upscaler, upscale_file, upscale_tree
from srquant.methods import METHODS, USUAL, Method, method_named
from srquant.methods.base import Data, EdgeProtocol
from srquant.methods.pipeline.data import require_data
from srquant.model import Model
from srquant.model.observing import first_checked, warn_if_unlike
from srquant.networks import NETWORKS
from srquant.quantizers import QUANTIZERS
from srquant.quantizers.ranges import RANGES
from srquant.support.errors import ArgumentError, ImageError
from srquant.support.files import is_file, is_folder
from srquant.support.overriding import override
from srquant.support.processes import Processes
from srquant.support.settings import Threads, check
from srquant.support.tensors import plain_arithmetic

if TYPE_CHECKING:
    from srquant.engines.agreement import Agreement
    from srquant.engines.float_files import FloatAgreement
    from srquant.engines.operands import Activations, Precision, Processor, Range, Storage

_PATCH = 48
"""Height and width of what a model is looked at before it is exported."""

K = TypeVar("K")


def pick_device(name: str) -> torch.device:
    """Make a device of a name; see :meth:`~srquant.support.processes.Processes.device`.

    Raises:
        ArgumentError: There is no such device here.
    """
    return Processes.here().device(name)


def describe_device(device: torch.device) -> str:
    """What computes, in words: the GPU's name, or how many threads of the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def configure(
    method: str | None = None,
    bits: int | None = None,
    *,
    weight_bits: int | None = None,
    edges: EdgeProtocol | None = None,
    layers: Sequence[str] | None = None,
    settings: Iterable[str] = (),
    **fields: object,
) -> Method:
    """A method's configuration: the paper's values, and what is said here, in any order.

    >>> configure("percentile", bits=3, quantile=0.999)
    >>> configure("oaptq", finetuning={"epochs": 3}, settings=["weights.granularity=per_channel"])

    Args:
        method: Name, for instance ``plq``; ``srquant``, our own, if None.
        bits: Of activations, and of weights unless ``weight_bits`` says otherwise; 2 to 8, 4 if None.
        weight_bits: Of weights.
        edges: ``8bit``, ``float`` or ``none``; see :class:`~srquant.methods.Method`. ``8bit`` if None.
        layers: Exceptions such as ``tail.*=8``.
        settings: Further fields, as ``field=value``; dots reach into fields that have fields of their own.
        **fields: Further fields, with values as Python has them; those of such a field as a dictionary.
            :func:`srquant.methods` lists them.

    Raises:
        UnknownNameError: There is no such method or field.
        ArgumentError: A value breaks its rule, or a field is given two values.
    """
    common = {"bits": bits, "weight_bits": weight_bits, "edges": edges, "layers": layers}
    given = {name: value for name, value in common.items() if value is not None}
    return override(method_named(method or USUAL)(), settings, given | fields)


def register(kind: K) -> K:
    """Add a method, a quantizer, a range, a network or an engine of one's own; a decorator of its class.

    It then has its name wherever the project's own have theirs. A package brings its own by entry points, whose groups
    are ``srquant.methods``, ``srquant.quantizers``, ``srquant.ranges``, ``srquant.networks`` and ``srquant.engines``.

    Args:
        kind: A subclass of ``Method``, ``Quantizer``, ``UniformRange`` or ``SRNetwork``, with a ``name`` of its own; or
            an engine, which is a ``Target``.

    Raises:
        ArgumentError: It is none of these, has no name, or its name is taken.
    """
    for registry in (METHODS, QUANTIZERS, RANGES, NETWORKS, TARGETS):
        if registry.takes(kind):
            return registry.register(kind)
    raise ArgumentError(
        f"{kind!r} cannot be registered; derive it from Method, Quantizer, UniformRange or SRNetwork, or make a Target"
    )


def quantize(
    model: Model,
    data: Data | Path | str,
    method: Method | str = USUAL,
    *,
    state: Path | str | None = None,
    device: str = "auto",
) -> Model:
    """Quantize a float model; it is left as it is.

    Under ``torchrun`` every process gets the same model, and methods that learn share their work.

    Args:
        model: From :func:`load` or :meth:`Model.wrap`.
        data: What the method needs (``method.needs``; :func:`srquant.methods` lists it). Most take low-resolution
            patches: a :class:`~srquant.images.Calibration`, or a folder of low-resolution images, of which 100 patches
            are taken. Photographs are larger than what the network will be given: for these methods pass
            ``Calibration.from_photographs(folder, model.scale)``, which makes low-resolution images of them. Methods
            that learn with ground truth take :class:`~srquant.learning.photographs.Photographs`, or a folder of them.
        method: A configuration (``PLQ(bits=3)``, or what :func:`configure` gives), or a name for its defaults (W4A4).
        state: Where a method that learns keeps its state every minute or so; if the file is there, it goes on from it,
            to the same result. Remove it when the model is safe.
        device: Where to compute.

    Raises:
        ArgumentError: An argument is of another kind, or the method needs other data; the message says what to pass.
        SrquantError: See :meth:`~srquant.methods.Method.quantize`.
    """
    _require("model", model, Model, "srquant.load(path) or srquant.Model.wrap(module, scale)")
    chosen = configure(method) if isinstance(method, str) else method
    _require("method", chosen, Method, "a name, or what srquant.configure gives")
    given = require_data(chosen, chosen.open(data, model.scale) if isinstance(data, Path | str) else data)
    kept = None if state is None else Path(state)
    where = pick_device(device)
    with plain_arithmetic(where):
        return chosen.quantize(model.to(where), given, kept).to("cpu")


def _require(name: str, value: object, kind: type, way: str) -> None:
    if not isinstance(value, kind):
        raise ArgumentError(f"{name}={reprlib.repr(value)} is no {kind.__name__}; pass {way}")


def export(
    model: Model,
    target: Path | str,
    *,
    engine: str | None = None,
    tile: tuple[int, int] | None = None,
    storage: Storage = "int8",
    range: Range = "auto",
    activations: Activations = "int8",
    precision: Precision = "float32",
    processor: Processor = "this",
    threads: int | None = None,
) -> Agreement | FloatAgreement:
    """Write a model as an ONNX file, run it in an engine, and compare: a quantized one in eight-bit integers, a float
    one in floats.

    Args:
        model: Quantized with ``grid=int8``; or float.
        target: An ``.onnx`` file.
        engine: Where to run it, a name in ``srquant.engines.TARGETS``; the first that is installed if None.
        tile: Height and width of the images it takes; None for any, where the network allows, else 128×128.
        storage: ``int4`` stores weights of up to four bits as such;
            see :class:`~srquant.engines.operands.ExportSettings`.
        range: Of the weights. ``full`` is for processors whose eight-bit products do not saturate, with VNNI or AMX;
            ``reduced`` is for any, with coarser weights; ``auto`` finds out which is right here.
        activations: Of a quantized model: ``float`` stores weights as integers and computes in float.
        precision: Of a float model: ``float32`` or ``float16``. Images are float32 all the same.
        processor: ``amx``, ``vnni`` or ``avx2``, on which a quantized model shall run; this one if not said.
        threads: For running it; all cores if None.

    Returns:
        What was written, what it is good for, how well the engine computes it (see
        :func:`~srquant.engines.agreement.needed_psnr`), and how well it agrees with the model, which is what weights of
        reduced range cost. Printed, it is one line.

    Raises:
        SrquantError: See :func:`~srquant.engines.agreement.export_onnx`.

    Warns:
        UnlikeWarning: The model's output does not look like its input.
    """
    from srquant.engines.agreement import export_onnx
    from srquant.engines.comparing import test_patch
    from srquant.engines.operands import settings_for

    check("threads", threads, Threads | None)
    settings = settings_for(processor, range, tile=tile, storage=storage, activations=activations, precision=precision)
    patch = test_patch(_PATCH, _PATCH)
    warn_if_unlike(model.network, patch, model(patch))
    return export_onnx(model, Path(target), settings, engine, threads)


def evaluate(
    model: Model | Exported,
    *data: Path | str,
    tile: int | None = None,
    overlap: int | None = None,
    border: Border = "replicate",
    scores: Iterable[str] = (),
    device: str = "auto",
) -> list[Scores]:
    """Score a model on benchmark sets: PSNR and SSIM, and what else is asked for.

    Where the model's bits follow the image, the bits that it was scored with are in ``Scores.fab``.

    >>> evaluate(model, "set5", "set14", scores=["lpips", "dists"])

    Args:
        model: Float or quantized, or an exported file opened in an engine.
        data: Folders of pairs, parents of several, folders of HR images, or names such as ``set5``; see
            :func:`~srquant.images.find_pairs`.
        tile: Enlarge in tiles of this size; None gives every image at once, where the model takes any size.
        overlap: Pixels that tiles overlap by; None for what the model needs (:func:`tiling`). 0 with ``tile=96`` scores
            patch by patch, as AdaBM and OAPTQ do on Urban100, Test2K and Test4K.
        border: How MATLAB's bicubic treats borders where LR images are made.
        scores: Further ones: ``lpips``, ``dists``; see :mod:`srquant.images.perceptual`.
        device: Where to compute.

    Raises:
        UnknownNameError: There is no such score.
        MissingExtraError: A score needs the extra ``perceptual``.
        FetchError: Weights of a score, or what has a name, cannot be fetched.
        ImageError: A folder has no pairs of the model's scale, or no known layout.

    Warns:
        FolderWarning: Something in a folder is not used, or HR images are cropped.
        UnlikeWarning: A float network's output does not look like its input: something that its weights do not tell
            is another than assumed. See the ``settings`` of :func:`load`.
    """
    if not data:
        raise ImageError("no data to evaluate on; give folders with HR and LR")
    folders = [folder for path in data for folder in find_pairs(path, model.scale, border)]
    if overlap is not None:
        check("overlap", overlap, Annotated[int, Field(ge=0, le=1_000_000)])
        if tile is None:
            raise ArgumentError(f"overlap={overlap} is of tiles, and the image is given at once; give tile=96 too")
    further = further_scores([scores] if isinstance(scores, str) else scores, pick_device(device))
    upscaler = _on_device(model, device)
    whole = tile is None and (isinstance(model, Model) or model.contract.tile is None)
    if whole:
        return _evaluate(upscaler, folders, model.scale, None, further)
    return _evaluate(upscaler, folders, model.scale, _tiling(model, 192 if tile is None else tile, overlap), further)


def _tiling(model: Model | Exported, tile: int, overlap: int | None) -> Tiling:
    cut = tiling(model, tile)
    return cut if overlap is None else replace(cut, overlap=overlap)


def _on_device(model: Model | Exported, device: str) -> Upscaler:
    """What enlarges images, there; a float network's first output is looked at."""
    if isinstance(model, Exported):
        return model
    moved = model.to(pick_device(device))
    return first_checked(moved.network, moved) if model.record is None else moved


def tiling(model: Model | Exported, tile: int) -> Tiling:
    """How images are cut for a model: tiles overlap by its whole receptive field, so that cuts change nothing.

    A quantized network needs all of it: a float network hardly feels the outermost pixels, but there they tip a code
    here and there, and that spreads. Where the field has no bound (attention over windows, means of whole images), or
    is above 128 pixels in a network that does not describe itself, tiles overlap by 32 pixels and cuts change a little;
    larger tiles make fewer of them.

    Raises:
        ArgumentError: The tile is smaller than 16 pixels or larger than any picture.
    """
    check("tile", tile, Annotated[int, Field(ge=SMALLEST_TILE, le=1_000_000)])
    if isinstance(model, Exported):
        return model.contract.tiling(tile)
    field = model.receptive_field
    return Tiling(tile, UNBOUNDED_OVERLAP if field is None else field, model.network.alignment)


def upscale(
    model: Model | Exported,
    source: Path | str,
    target: Path | str,
    *,
    tile: int = 192,
    skip_existing: bool = False,
    format: Target = "same",
    device: str = "auto",
) -> Done:
    """Enlarge a picture, or all pictures of a folder and the folders in it; a target in the folder is left out.

    Every page of a TIFF is enlarged, and every frame of an animation where the format written holds several: pages in
    TIFF, frames in PNG, WebP and TIFF. Metadata is kept; what the format cannot hold is said by a
    :class:`~srquant.support.errors.LossWarning`, once for all pictures.

    Args:
        model: Float or quantized, or an exported file opened in an engine.
        source: A file or a folder, or the name of data that ``srquant fetch`` lists.
        target: A file if the source is one, else a folder.
        tile: Height and width, in LR pixels, of what is computed at once (and overlaps around it).
        skip_existing: Leave pictures alone that are there already, to go on after an interruption.
        format: To write into a folder: ``png``, ``webp``, ``jpeg``, ``tiff``, or ``same`` as each picture has (PNG for
            what is only read, such as GIF). Where the target is a file, its name's ending says the format.
        device: Where to compute.

    Raises:
        ImageError: The picture, or every picture of the folder, cannot be read or written.
        OutputError: The target is the source.
        ArgumentError: There is no such format, or the target's name says another one.

    Warns:
        UnlikeWarning: See :func:`evaluate`.
        FolderWarning: Something in the folder is passed over; the message counts it by reason.
    """
    source, target = resolve(source, "pictures", model.scale), Path(target)
    upscaler = _on_device(model, device)
    cut = tiling(model, tile)
    if is_folder(source):
        return upscale_tree(upscaler, source, target, model.scale, cut, skip_existing=skip_existing, form=format)
    if is_folder(target):
        target = named(target / source.name, format)
    elif format != "same" and named(target, format) != target:
        raise ArgumentError(f"format={format!r} and the name {target.name} disagree; leave one of them out")
    if skip_existing and is_file(target):
        return Done((), (target,), ())
    upscale_file(upscaler, source, target, model.scale, cut)
    return Done((target,), (), ())
