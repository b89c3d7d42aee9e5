"""An exported model: what its file says of itself, and what every engine does around the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from srquant.engines.saturation import products_saturate
from srquant.engines.targets import Target
from srquant.images.tiling import SMALLEST_TILE, UNBOUNDED_OVERLAP, Tiling
from srquant.networks.base import Alignment, Scale
from srquant.networks.modules import pad_to_size
from srquant.networks.sizes import Sizes
from srquant.support.errors import ArgumentError, ModelFileError, SaturationWarning, SrquantError, first_line
from srquant.support.extras import import_extra
from srquant.support.settings import Checked, from_json

Length = Annotated[int, Field(ge=1, le=16_384)]
"""Height or width of the images a file takes."""


@dataclass(frozen=True)
class Contract(Checked):
    """What an exported file does and where it came from; stored in it as JSON.

    It takes ``images``, ``n 3 h w`` in [0, 1], and gives ``enlarged``, ``n 3 scale·h scale·w``.
    """

    KEY: ClassVar[str] = "srquant.export"

    scale: Scale
    tile: tuple[Length, Length] | None
    """Height and width it takes; None for any, and any number of images."""
    alignment: Alignment
    """Tiles whose corners are multiples of this are computed as inside the whole image."""
    receptive_field: Annotated[int, Field(ge=0, le=1_000_000)] | None
    saturates: bool
    """Whether pairs of products can leave 16 bits, in which processors without VNNI or AMX add them."""
    network: str
    source: str
    """Name of the file of float weights."""
    method: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """The method's resolved configuration."""
    calibration: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    export: dict[str, Any] = field(default_factory=dict[str, Any])
    """How it was exported."""
    smallest: Length = 1
    """Least height and width that it takes, where it takes several; they are multiples of the alignment as well."""
    one_image: bool = False
    """Whether it takes one image at a time, where it takes any size; files of one size always do."""

    def plain(self) -> dict[str, str]:
        """What whoever runs the file without srquant has to know, as plain words."""
        size = "any" if self.tile is None else "x".join(map(str, self.tile))
        return {
            "scale": str(self.scale),
            "colour": "RGB",
            "layout": "NCHW",
            "value_range": "0..1",
            "size": size,
            "alignment": str(self.alignment),
            "smallest": str(self.smallest),
            "halo": str(self.overlap),
            "method": self.method,
            "bits": self.bits,
        }

    @property
    def bits(self) -> str:
        """Of weights and activations, as in W4A8; the precision of a float network."""
        if self.method == "float":
            return str(self.export.get("precision", "float32"))
        activations = self.settings.get("bits", "?")
        weights = self.settings.get("weight_bits") or activations
        return f"W{weights}A{'float' if self.export.get('activations') == 'float' else activations}"

    def describe(self) -> str:
        """How to use the file, in a few sentences."""
        if self.tile is None:
            multiple = f"multiples of {self.alignment}, " if self.alignment > 1 else ""
            sizes = f"{multiple}at least {self.smallest}"
        else:
            sizes = "{} and {}".format(*self.tile)
        return (
            f"Enlarges RGB images {self.scale} times. Input: images, float32, n 3 height width, values 0 to 1; height "
            f"and width: {sizes} (mirror the lower and right border up to that, and cut the output). Output: enlarged, "
            f"n 3 {self.scale}*height {self.scale}*width, about 0 to 1: clamp it. Tiles should overlap by "
            f"{self.overlap} pixels on each side. Network: {self.network} ({self.source}); {self.method}, {self.bits}."
        )

    @property
    def overlap(self) -> int:
        """Pixels that tiles need to see beyond what is kept of them."""
        field = UNBOUNDED_OVERLAP if self.receptive_field is None else self.receptive_field
        return field + -field % self.alignment

    def tiling(self, tile: int = 192) -> Tiling:
        """How images are cut for it.

        Args:
            tile: Height and width of what is kept, where the file takes any size.

        Raises:
            ArgumentError: The file's own tiles are too small for the network's overlap.
        """
        if self.tile is None:
            return Tiling(tile, self.overlap, self.alignment)
        least = 2 * self.overlap + SMALLEST_TILE
        if min(self.tile) < least or any(length % self.alignment for length in self.tile):
            height, width = self.tile
            multiple = f" and multiples of {self.alignment}" if self.alignment > 1 else ""
            raise ArgumentError(
                f"tile={height}x{width} does not do: {self.network} needs {self.overlap} pixels of overlap on each "
                f"side, so height and width must be at least {least}{multiple}"
            )
        return Tiling(min(self.tile), self.overlap, self.alignment, self.tile)


def read_contract(path: Path, named: Path | None = None) -> tuple[Contract, bytes]:
    """What an exported file says of itself, and its content as engines want it.

    Args:
        path: The file.
        named: What messages call it; its path if None.

    Raises:
        ModelFileError: It is missing, damaged, keeps its weights in other files, or is no file that srquant exported.
        MissingExtraError: The ``onnx`` package is not installed.
    """
    named = named or path
    onnx = import_extra("onnx", f"opening {named.name}", "onnx")
    try:
        content = path.read_bytes()
        parsed = onnx.load_from_string(content)
    except OSError as error:
        raise ModelFileError(f"{named} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise ModelFileError(f"{named} is no ONNX file, or is damaged: {first_line(error)}") from error
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in _tensors(parsed, onnx.TensorProto)):
        raise ModelFileError(
            f"{named} keeps weights in other files, which srquant never writes and does not open; export it again"
        )
    try:
        onnx.checker.check_model(parsed)
    except Exception as error:
        raise ModelFileError(f"{named} is no ONNX file, or is damaged: {first_line(error)}") from error
    texts = {entry.key: entry.value for entry in parsed.metadata_props}
    if Contract.KEY not in texts:
        raise ModelFileError(f"{named} was not exported by srquant; its scale and tiling are unknown")
    try:
        contract = from_json(Contract, texts[Contract.KEY])
    except SrquantError as error:
        raise ModelFileError(f"{named}: what it says of itself cannot be read: {error}") from error
    return contract, _widen(onnx, parsed).SerializeToString() if contract.export.get("storage") == "int4" else content


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """All tensors that a message of protobuf holds, at any depth."""
    if isinstance(message, kind):
        yield message
        return
    for described, value in message.ListFields():
        if described.message_type is not None:
            for part in cast(Iterable[Any], value if isinstance(value, Iterable) else (value,)):
                yield from _tensors(part, kind)


def _widen(onnx: Any, model: Any) -> Any:
    """Compute what makes int8 of four-bit weights: with four-bit constants in the graph engines compute in float."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    integers = (onnx.TensorProto.INT4, onnx.TensorProto.INT8)
    known = {name: onnx.numpy_helper.to_array(t) for name, t in stored.items() if t.data_type in integers}
    kinds: dict[str, Callable[..., Any]] = {"Cast": np.positive, "Mul": np.multiply, "Add": np.add}
    for node in list(model.graph.node):
        if node.op_type in kinds and all(name in known for name in node.input):
            result = kinds[node.op_type](*(known[name].astype(np.int8) for name in node.input))
            known[node.output[0]] = result
            model.graph.initializer.append(onnx.numpy_helper.from_array(result, node.output[0]))
            model.graph.node.remove(node)
    used = {name for node in model.graph.node for name in node.input}
    for tensor in list(model.graph.initializer):
        if tensor.name not in used:
            model.graph.initializer.remove(tensor)
    return model


@dataclass(frozen=True)
class Exported:
    """An exported file, opened in an engine; call it like a :class:`~srquant.model.Model`.

    Args:
        contract: What the file says of itself.
        name: Of the file.
        engine: Of the engine, with its version.
        run: ``n 3 h w`` to ``n 3 scale·h scale·w``, float32, contiguous; of the one size if the file has one.
    """

    contract: Contract
    name: str
    engine: str
    run: Callable[[Tensor], Tensor]

    def __repr__(self) -> str:
        size = "any size" if self.contract.tile is None else "images of {}x{}".format(*self.contract.tile)
        of = f"{self.contract.network} ×{self.contract.scale} by {self.contract.method}"
        return f"Exported({self.name}: {of}, for {size}, in {self.engine})"

    @property
    def scale(self) -> int:
        """How many times larger the output is."""
        return self.contract.scale

    def __call__(self, images: Tensor) -> Tensor:
        """Enlarge images in [0, 1]; the result is not clamped.

        Images smaller than the file's tiles, or of other sizes than it takes, are mirrored at their lower and right
        border as far as it needs.

        Raises:
            ArgumentError: The images are no ``n 3 h w``, or larger than the file's tiles.
        """
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise ArgumentError(f"images must be n 3 h w, at least one pixel; got {list(images.shape)}")
        images = images.float().cpu()
        height, width = images.shape[-2:]
        if self.contract.tile is None:
            sizes = Sizes(self.contract.alignment, self.contract.smallest)
            return sizes.run(self._run_each if self.contract.one_image else self._run_all, images, self.scale)
        if height > self.contract.tile[0] or width > self.contract.tile[1]:
            largest = "x".join(map(str, self.contract.tile))
            raise ArgumentError(
                f"{self.name} takes images up to {largest}, this one is {height}x{width}; cut it into tiles"
            )
        output = self._run_each(pad_to_size(images, *self.contract.tile))
        return output[..., : self.scale * height, : self.scale * width]

    def _run_all(self, images: Tensor) -> Tensor:
        output = self.run(images.contiguous())
        expected = (len(images), 3, *(self.scale * size for size in images.shape[-2:]))
        if output.shape != expected:
            raise ModelFileError(
                f"{self.name} is damaged: it turns {list(images.shape)} into {list(output.shape)}, not {list(expected)}"
            )
        return output

    def _run_each(self, images: Tensor) -> Tensor:
        return torch.cat([self._run_all(image[None]) for image in images])


def open_in(target: Target, path: Path, threads: int | None = None, named: Path | None = None) -> Exported:
    """Open an exported file in an engine; see :func:`srquant.engines.open_exported`, which knows engines by name.

    Args:
        target: The engine.
        path: The file.
        threads: How many to use; all cores if None.
        named: What messages call the file, where it has a temporary name; its path if None.
    """
    named = named or path
    package = target.imported(named.name)
    contract, content = read_contract(path, named)
    name = f"{target.title} {package.__version__.split('-')[0]}"
    if contract.saturates and products_saturate(target.compiled):
        warnings.warn(
            f"{name} adds pairs of eight-bit products in 16 bits on this processor, and those of {named.name} may "
            f"saturate; export with --range reduced to make sure that they do not",
            SaturationWarning,
            stacklevel=3,
        )
    return Exported(contract, named.name, name, target.compiled(content, str(named), threads))
