"""Options that several commands share, and groups of them that open what they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import typer

from srquant.engines.targets import TARGETS, target_named

if TYPE_CHECKING:
    from srquant.engines.exported import Exported
    from srquant.images import Calibration
    from srquant.methods import Method
    from srquant.methods.base import Data
    from srquant.model import Model


def _known_engine(name: str | None) -> str | None:
    return None if name is None else target_named(name).name


ModelPath = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A float network in any published layout, a file srquant made, or a name (srquant fetch)."
    ),
]
Bits = Annotated[int, typer.Option(help="Of activations and weights, 2 to 8.")]
Scale = Annotated[int, typer.Option(help="How many times larger the output is.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1 … Under torchrun auto and cuda give each process a GPU of its own.")
]
ValueRange = Annotated[
    float | None,
    typer.Option(
        help="Largest value of images in the float network, 1 or 255, where its weights do not tell; the same as --set "
        "network.value_range=…"
    ),
]
NetworkSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="What a float network's weights do not tell: network.residual_scale=0.1, network.value_range=1 …"
    ),
]
_OF_NETWORK = "network."

EngineOption = Annotated[
    str | None,
    typer.Option(
        callback=_known_engine,
        metavar=f"<{'|'.join(TARGETS.own)}>",
        help="Runs .onnx files that srquant exported; the first that is installed.",
    ),
]
Threads = Annotated[int | None, typer.Option(help="How many to compute with; all cores if not given.")]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command have option groups: dataclasses, each of whose fields is an option of the command.

    Args:
        command: Has parameters that are options, and parameters that are such dataclasses.

    Returns:
        A command with all the options, which makes the dataclasses of them.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: cast("Callable[..., Any]", kind) for name, kind in hints.items() if is_dataclass(kind)}
    options: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        group = groups.get(parameter.name)
        kinds = get_type_hints(group, include_extras=True) if group else hints
        for option in signature(group).parameters.values() if group else (parameter,):
            options.append(option.replace(kind=Parameter.KEYWORD_ONLY, annotation=kinds[option.name]))

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(cast(Any, group))})
            for name, group in groups.items()
        }
        command(**given, **made)

    run.__annotations__ = {option.name: option.annotation for option in options}
    cast(Any, run).__signature__ = Signature(options)
    return run


@dataclass(frozen=True)
class NetworkOptions:
    """A float network, and where it computes."""

    network: Annotated[
        Path,
        typer.Argument(metavar="NETWORK", help="Weights in any published layout, or a name (srquant fetch)."),
    ]
    value_range: ValueRange = None
    set_: NetworkSettings = None
    device: Device = "auto"

    def load(self) -> Model:
        """The network, on its device.

        Raises:
            SrquantError: It cannot be opened, or a setting is none of a network's.
        """
        from srquant import load
        from srquant.api import pick_device

        settings = network_settings(self._network_settings)
        return load(self.network, value_range=self.value_range, settings=settings).to(pick_device(self.device))

    @property
    def _network_settings(self) -> list[str]:
        return self.set_ or []


@dataclass(frozen=True)
class NetworkAndMethodOptions(NetworkOptions):
    """A float network, where it computes, and fields of it and of the method."""

    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other field of the method: weights.granularity=per_channel …; or what the network's weights do "
            "not tell: network.residual_scale=0.1, network.value_range=1 …",
        ),
    ] = None

    @property
    def method_settings(self) -> list[str]:
        """Those of the method, as ``field=value``."""
        return split_settings(self.set_)[1]

    @property
    def _network_settings(self) -> list[str]:
        return [_OF_NETWORK + text for text in split_settings(self.set_)[0]]


@dataclass(frozen=True)
class ModelOptions:
    """A float network, a quantized model or an exported file, and what computes it."""

    model: ModelPath
    value_range: ValueRange = None
    set_: NetworkSettings = None
    device: Device = "auto"
    engine: EngineOption = None
    threads: Threads = None

    def open(self) -> Model | Exported:
        """A model, or an exported file in an engine, by the file's name.

        Raises:
            ArgumentError: The number of threads breaks its rule, or an engine was named for a model that is no
                ``.onnx`` file.
            SrquantError: It cannot be opened.
        """
        import torch

        from srquant import load, open_exported
        from srquant.support.errors import ArgumentError
        from srquant.support.settings import Threads, check

        path, engine, threads = self.model, self.engine, self.threads
        check("threads", threads, Threads | None)
        settings = network_settings(self.set_)
        if path.suffix == ".onnx":
            if settings or self.value_range is not None:
                raise ArgumentError(
                    f"--set and --value-range are for float networks, and {path} is exported; leave them out"
                )
            return open_exported(path, engine, threads)
        if engine is not None:
            raise ArgumentError(
                f"--engine {engine} runs .onnx files, and {path} is none; make one with: srquant export"
            )
        if threads is not None:
            torch.set_num_threads(threads)
        return load(path, value_range=self.value_range, settings=settings)


@dataclass(frozen=True)
class CalibrationOptions:
    """Calibration patches."""

    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of LR images (with all folders in it), like those the network will be given."),
    ] = None
    calibration_hr: Annotated[
        Path | None, typer.Option(help="Folder of photographs from which LR images are made by MATLAB's bicubic.")
    ] = None
    patches: Annotated[int, typer.Option(help="Calibration patches, up to 100,000.")] = 100
    patch_size: Annotated[
        int | None,
        typer.Option(
            help="Their height and width; smaller images are passed over. 96 if not given, less where most are smaller."
        ),
    ] = None
    seed: Annotated[int, typer.Option(help="Decides which calibration patches are drawn.")] = 0

    @property
    def folders(self) -> tuple[Path | None, ...]:
        """What is read."""
        return self.calibration, self.calibration_hr

    def open(self, scale: int) -> Calibration:
        """Patches of whichever folder was given.

        Raises:
            ArgumentError: Both were given, or none.
        """
        from srquant.images import Calibration
        from srquant.support.errors import ArgumentError

        drawn: dict[str, Any] = {"count": self.patches, "size": self.patch_size, "seed": self.seed}
        if self.calibration is not None and self.calibration_hr is None:
            return Calibration.from_low_resolution(self.calibration, **drawn)
        if self.calibration_hr is not None and self.calibration is None:
            return Calibration.from_photographs(self.calibration_hr, scale, **drawn)
        raise ArgumentError("give either --calibration (LR images) or --calibration-hr (photographs)")


@dataclass(frozen=True)
class DataOptions(CalibrationOptions):
    """What a method is given: calibration patches, or photographs with ground truth."""

    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photographs for methods that learn with ground truth (srquant methods tells which); LR "
            "images are made of them by MATLAB's bicubic."
        ),
    ] = None

    @property
    def folders(self) -> tuple[Path | None, ...]:
        return (*super().folders, self.data)

    def open_for(self, method: Method, scale: int) -> Data:
        """What a method needs, of whichever folder was given.

        Raises:
            ArgumentError: Another folder was given, or an option that the method does not have.
        """
        from srquant.methods.pipeline.data import data_for
        from srquant.support.errors import ArgumentError

        if method.needs == "pairs":
            usual = CalibrationOptions()
            if (self.patches, self.patch_size, self.seed) != (usual.patches, usual.patch_size, usual.seed):
                raise ArgumentError(
                    f"--patches, --patch-size and --seed are of calibration patches, and {method.name} learns with "
                    f"ground truth; use --set training.patch=… and --set training.seed=…"
                )
            if (self.calibration, self.calibration_hr) != (None, None):
                raise ArgumentError(f"{method.name} learns with ground truth: give --data and no calibration")
        elif self.data is not None:
            raise ArgumentError(
                f"--data {self.data}: {method.name} is given LR patches alone; give --calibration-hr {self.data}, "
                f"which makes them of photographs"
            )
        return data_for(method, scale, lambda: self.open(scale), self.data)


@dataclass(frozen=True)
class FewPatches(CalibrationOptions):
    """Calibration patches of which every value is counted: few unless more are asked for."""

    patches: Annotated[int, typer.Option(help="Patches whose activations are counted.")] = 8


_FILES = "Exported files (.onnx)"


@dataclass(frozen=True)
class ExportOptions:
    """How an exported file is written, and where it is run to check it."""

    engine: Annotated[
        str | None,
        typer.Option(
            callback=_known_engine,
            metavar=f"<{'|'.join(TARGETS.own)}>",
            help="Runs the file to check it; the first that is installed.",
            rich_help_panel=_FILES,
        ),
    ] = None
    tile: Annotated[
        str,
        typer.Option(
            help="Height and width of the images it takes, as 64x64; dynamic for any.", rich_help_panel=_FILES
        ),
    ] = "dynamic"
    for_: Annotated[
        Literal["this", "amx", "vnni", "avx2"],
        typer.Option(
            "--for",
            help="The processor it shall run on: amx and vnni keep the weights' full range; avx2 adds pairs of 8-bit "
            "products in 16 bits, and gets coarser weights; this finds out.",
            rich_help_panel=_FILES,
        ),
    ] = "this"
    range_: Annotated[
        Literal["auto", "full", "reduced"],
        typer.Option(
            "--range",
            help="Of the weights, if not what the processor asks for: full or reduced.",
            rich_help_panel=_FILES,
        ),
    ] = "auto"
    activations: Annotated[
        Literal["int8", "float"],
        typer.Option(
            help="float rounds no activation: a small file, computed in float, that looks like the float network.",
            rich_help_panel=_FILES,
        ),
    ] = "int8"
    storage: Annotated[
        Literal["int8", "int4"],
        typer.Option(
            help="int4 halves the file of a model of up to 4 bits; it runs as int8 all the same.",
            rich_help_panel=_FILES,
        ),
    ] = "int8"
    threads: Annotated[
        int | None,
        typer.Option(help="How many to run it with; all cores if not given.", rich_help_panel=_FILES),
    ] = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of ``64x64``, None of ``dynamic``.

        Raises:
            ArgumentError: It is neither.
        """
        from srquant.support.errors import ArgumentError

        if self.tile == "dynamic":
            return None
        height, _, width = self.tile.partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise ArgumentError(f"--tile {self.tile} is neither a height and width such as 64x64, nor dynamic")
        return int(height), int(width)

    def require_possible(self, output: Path) -> None:
        """Refuse, before long work starts, options that break a rule and an engine that is not there.

        Raises:
            SrquantError: They do, or it is not.
        """
        from srquant.engines.operands import settings_for
        from srquant.support.settings import Threads, check

        check("threads", self.threads, Threads | None)
        settings_for(self.for_, self.range_, tile=self.size, storage=self.storage, activations=self.activations)
        target_named(self.engine).imported(output.name)

    def write(self, model: Model, output: Path, **more: Any) -> None:
        """Write a model, check the file, and say how it went.

        Raises:
            SrquantError: See :func:`srquant.export`.
        """
        from srquant import export

        agreement = export(
            model,
            output,
            engine=self.engine,
            tile=self.size,
            storage=self.storage,
            range=self.range_,
            activations=self.activations,
            processor=self.for_,
            threads=self.threads,
            **more,
        )
        print(f"{output}: {output.stat().st_size:,} bytes; {agreement}")


@dataclass(frozen=True)
class QuantizationOptions:
    """What all methods are told alike."""

    bits: Annotated[int | None, typer.Option(help="Of activations and weights, 2 to 8; 4 if not given.")] = None
    weight_bits: Annotated[int | None, typer.Option(help="Of weights, if not as --bits.")] = None
    edges: Annotated[
        Literal["8bit", "float", "none"] | None,
        typer.Option(
            help="First, upsampler and last convolutions: at 8 bits, left float, or like all others; 8bit if not given."
        ),
    ] = None

    def configure(
        self, method: str | None, settings: Iterable[str] = (), layers: Sequence[str] | None = None
    ) -> Method:
        """A method's configuration, with further fields and exceptions.

        Raises:
            UnknownNameError: There is no such method or field.
            ArgumentError: A value breaks its rule, or a field is given two values.
        """
        from srquant import configure

        return configure(
            method, self.bits, weight_bits=self.weight_bits, edges=self.edges, layers=layers, settings=settings
        )


def network_settings(given: Iterable[str] | None) -> list[str]:
    """Texts such as ``network.residual_scale=0.1`` without their first word, as :func:`srquant.load` takes them.

    Raises:
        ArgumentError: One begins with another word.
    """
    from srquant.support.errors import ArgumentError

    for text in given or ():
        if not text.startswith(_OF_NETWORK):
            raise ArgumentError(
                f"--set {text}: this command sets fields of the float network only; write network.FIELD=value"
            )
    return [text.removeprefix(_OF_NETWORK) for text in given or ()]


def split_settings(given: Iterable[str] | None) -> tuple[list[str], list[str]]:
    """Assignments of ``--set``: those of float networks, without their first word, and those of methods."""
    texts = list(given or ())
    own = [text.removeprefix(_OF_NETWORK) for text in texts if text.startswith(_OF_NETWORK)]
    return own, [text for text in texts if not text.startswith(_OF_NETWORK)]


def require_output(output: Path, kind: str, suffixes: Sequence[str], *inputs: Path | None, below: bool = False) -> None:
    """Check, before long work starts, that files can be written without harm to what is read.

    Args:
        output: The file that is asked for.
        kind: What it holds, in the plural.
        suffixes: How its name must end, and the endings of the files that are written beside it.
        inputs: Files and folders that are read.
        below: Whether folders are read with all folders in them.

    Raises:
        ArgumentError: The name ends otherwise.
        OutputError: It cannot be written, or is an input.
    """
    from srquant.support.errors import ArgumentError
    from srquant.support.files import require_apart, require_writable

    if output.suffix != suffixes[0]:
        raise ArgumentError(f"--output {output}: {kind} are written as {suffixes[0]} files; give a name that ends so")
    for suffix in suffixes:
        require_apart(output.with_suffix(suffix), *inputs, below=below)
    require_writable(output)
