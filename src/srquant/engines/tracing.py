"""A network as a graph of ONNX operators, for one image size or for all: PyTorch's own exporter, and what it needs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import lcm
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srquant.engines.standard import OPSET
from srquant.engines.translation import translations
from srquant.networks.base import SRNetwork
from srquant.networks.undescribed import UndescribedNetwork
from srquant.support.errors import ArgumentError, first_line
from srquant.support.extras import import_extra

Program = torch.export.ExportedProgram
_WINDOWS = (8, 16)
"""Heights and widths of windows that networks with attention cut their images into."""
_LEAST = 16
"""Height and width, at least, of images that a network is followed through."""
_SAME = 1e-3
"""Of the output's standard deviation: how far two ways to compute it may be apart, on average."""


@dataclass(frozen=True)
class Followed:
    """What a network does with an image.

    Args:
        program: A list of PyTorch's operators.
        step: Height and width that it takes are multiples of this.
    """

    program: Program
    step: int


def follow(network: SRNetwork, face: nn.Module, tile: tuple[int, int] | None) -> Followed | None:
    """What a network does with an image.

    For all sizes it is followed through one; and what was found must then compute an image of another size as the
    network does. Without that, a network that computes with the size of its image would seem to take any. Networks that
    fill images up by themselves are followed through images that need no filling up. The number of images is free as
    well where a network describes itself; with others that takes several times as long.

    Args:
        network: That which is behind the face; it says which sizes there are.
        face: Images in [0, 1] to images in about [0, 1].
        tile: Height and width; None for all sizes.

    Returns:
        None if it cannot be one list for all sizes.

    Raises:
        ArgumentError: The network does what cannot be followed.
    """
    if tile is not None:
        try:
            return Followed(_exported(face, torch.rand(1, 3, *tile), ()), network.alignment)
        except Exception as error:
            # What a network may do wrong here is without limit, and so are the exceptions.
            raise ArgumentError(f"the network cannot be traced for export: {first_line(error)}") from error
    steps, count, free = _attempts(network)
    for step in steps:
        size = -(-max(_LEAST, smallest(network)) // step) * step
        try:
            program = _exported(face, torch.rand(count, 3, size + step, size + 2 * step), free)
            if _is_free(program, free) and _computes(program, face, torch.rand(1, 3, size + 3 * step, size)):
                return Followed(program, step)
        except Exception:  # as above
            continue
    return None


def smallest(network: SRNetwork) -> int:
    """The least height and width of images that a network takes without filling them up."""
    return max(1, getattr(getattr(network, "sizes", None), "smallest", 1))


def _attempts(network: SRNetwork) -> tuple[list[int], int, tuple[int, ...]]:
    """What sizes are tried as multiples of; the number of images; axes that are free."""
    own = network.alignment
    if isinstance(network, UndescribedNetwork):
        windows = any(isinstance(module, nn.Linear | nn.LayerNorm) for module in network.modules())
        return [lcm(own, step) for step in (_WINDOWS if windows else (1, *_WINDOWS[:1]))], 1, (2, 3)
    # Of the project's own networks those without bound have attention, which is written for the size of tiles.
    return [own] if network.receptive_field is not None else [], 2, (0, 2, 3)


def takes_one_image(program: Program) -> bool:
    """Whether it takes no more than one image at a time."""
    return not _is_free(program, (0,))


def as_onnx(program: Program) -> Any:
    """The same in ONNX, a model of onnx_ir, as PyTorch's exporter writes it.

    Raises:
        ArgumentError: There is an operator that cannot be written.
        MissingExtraError: The ``onnx`` extra is not installed.
    """
    import_extra("onnxscript", "exporting to ONNX", "onnx")
    with _quietly(), torch.no_grad():
        try:
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                input_names=["images"],
                output_names=["enlarged"],
                opset_version=OPSET,
                verbose=False,
                optimize=False,
                custom_translation_table=cast(dict[Callable[..., Any], Any], translations()),
            )
        except Exception as error:  # its errors are many and nested; the innermost says what it was
            while error.__cause__ is not None:
                error = error.__cause__
            raise ArgumentError(f"the network cannot be written as ONNX: {first_line(error)}") from error
    assert made is not None
    return made.model


def _exported(face: nn.Module, images: Tensor, free: tuple[int, ...]) -> Program:
    shapes = (dict.fromkeys(free, torch.export.Dim.AUTO),) if free else None
    with _quietly(), torch.no_grad(), _Followable():
        return torch.export.export(face, (images,), strict=False, dynamic_shapes=shapes)


def _input(program: Program) -> Tensor:
    name = next(iter(program.graph_signature.user_inputs))
    return next(node.meta["val"] for node in program.graph.nodes if node.name == name)


def _is_free(program: Program, axes: tuple[int, ...]) -> bool:
    return not any(str(_input(program).shape[axis]).isdigit() for axis in axes)


def _computes(program: Program, face: nn.Module, images: Tensor) -> bool:
    with _quietly(), torch.no_grad():
        expected, found = face(images.clone()), program.module()(images)
    return expected.shape == found.shape and float((expected - found).std()) <= _SAME * float(expected.std())


class _Followable(TorchFunctionMode):
    """While it is entered: what cannot be followed is done in another way, to the same result.

    ``tensor.data`` would leave what is no tensor in a network that sets it; SPAN makes its weights so, in each pass.
    Pooling to a part of the height and width would be pooling to a fixed size; SAFMN has it.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == cast(Any, Tensor.data).__get__:
            return args[0].detach()
        if func == cast(Any, Tensor.data).__set__:
            return None
        if func in _POOLING and len(args) == 2 and isinstance(args[1], tuple | list):
            sides = list(zip(args[0].shape[-2:], cast(Sequence[int], args[1]), strict=True))
            if any(wanted != 1 for _, wanted in sides) and all(size % wanted == 0 for size, wanted in sides):
                return _POOLING[func](args[0], [int(size // wanted) for size, wanted in sides])
        return func(*args, **(kwargs or {}))


_POOLING: dict[Any, Callable[[Tensor, list[int]], Tensor]] = {
    F.adaptive_max_pool2d: F.max_pool2d,
    F.adaptive_avg_pool2d: F.avg_pool2d,
}


@contextmanager
def _quietly() -> Generator[None]:
    """Keep PyTorch from printing what is reported in one line, and from warning about its own pieces."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
