"""Every network that spandrel can open (the ``spandrel`` extra), behind the same face as the project's own."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from srquant.networks.base import State, ValueRange, check_kinds
from srquant.networks.luma import enlarge_on_luma
from srquant.networks.sizes import Sizes
from srquant.networks.undescribed import UndescribedNetwork
from srquant.support.errors import MissingExtraError, NetworkError
from srquant.support.settings import Checked
from srquant.support.torchvision import make_importable

_PREFIX = "network."
_LONGEST = 200
"""Letters of another library's words."""


@dataclass(frozen=True)
class SpandrelConfig(Checked):
    """What spandrel deduced."""

    architecture: str
    """spandrel's name of the network, for instance ``CRAFT``."""
    value_range: ValueRange = 1.0
    """Of the images that the weights were trained on: 1, unless somebody trained otherwise."""


class SpandrelNetwork(UndescribedNetwork):
    """A network of spandrel's; its own keys behind the prefix ``network.``, images in [0, 1] unless said otherwise.

    One that takes and gives a single channel is run on luma, see :func:`~srquant.networks.luma.enlarge_on_luma`.
    Attention products inside it are functions, not modules; :mod:`srquant.model.products` makes modules of them.
    """

    name = "spandrel"
    Config = SpandrelConfig

    def __init__(self, descriptor: Any, config: SpandrelConfig) -> None:
        super().__init__()
        self.config = config
        self.network: nn.Module = descriptor.model
        self.scale = int(descriptor.scale)
        self.value_range = config.value_range
        self.on_luma = descriptor.input_channels == 1
        needs = descriptor.size_requirements
        self.alignment = int(needs.multiple_of)
        self.sizes = Sizes(self.alignment, int(needs.minimum), bool(needs.square))
        self._call = cast(Callable[[nn.Module, Tensor], Tensor], getattr(descriptor, "_call_fn", _call))

    def enlarge(self, images: Tensor) -> Tensor:
        if self.on_luma:
            return enlarge_on_luma(self._run, images, self.scale, self.value_range)
        return self._run(images)

    def _run(self, images: Tensor) -> Tensor:
        return self.sizes.run(partial(self._call, self.network), images, self.scale)

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[SpandrelConfig, State] | None:
        state = {key.removeprefix(_PREFIX): value for key, value in state.items()}
        descriptor = _open(state)
        if descriptor is None:
            return None
        return SpandrelConfig(_name(descriptor), 1.0 if value_range is None else value_range), state

    @classmethod
    def build(cls, config: SpandrelConfig, state: Mapping[str, Tensor]) -> Self:
        state = {key.removeprefix(_PREFIX): value for key, value in state.items()}
        descriptor = _open(state)
        if descriptor is None:
            raise NetworkError(f"spandrel does not recognise these weights as {config.architecture}")
        if _name(descriptor) != config.architecture:
            raise NetworkError(f"spandrel takes these weights for {_name(descriptor)}, not {config.architecture}")
        channels = descriptor.input_channels, descriptor.output_channels
        if channels not in ((3, 3), (1, 1)):
            raise NetworkError(
                f"this {config.architecture} takes {channels[0]} and gives {channels[1]} channels; srquant runs "
                f"networks that take and give RGB (3) or luma (1)"
            )
        network = cls(descriptor, config).eval()
        check_kinds(config.architecture, network.network.state_dict(), state)
        try:
            with torch.no_grad():
                network(torch.zeros(1, 3, network.alignment, network.alignment))
        except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise NetworkError(f"this {config.architecture} cannot run on an image: {reason}") from error
        return network


def _name(descriptor: Any) -> str:
    return str(descriptor.architecture.id)


def _call(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


def _open(state: State) -> Any | None:
    """Spandrel's descriptor of an image-to-image network, or None if it knows none with these keys."""
    spandrel = import_spandrel()
    try:
        descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError:
        return None
    except Exception as error:
        # spandrel's detectors and constructors raise whatever Python raises on shapes they did not expect.
        raise NetworkError(f"spandrel cannot open these weights: {_in_a_line(error)}") from error
    return descriptor if isinstance(descriptor, spandrel.ImageModelDescriptor) else None


def _in_a_line(error: Exception) -> str:
    """The first of what is wrong, and how much more is, of an error that PyTorch may have written over many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    title, *details = lines or [type(error).__name__]
    if not details:
        return f"{type(error).__name__}: {title[:_LONGEST]}"
    more = f", and {len(details) - 1} more" if len(details) > 1 else ""
    return f"{title.rstrip(':')[:_LONGEST]}: {details[0].rstrip('. ')[:_LONGEST]}{more}"


def import_spandrel() -> Any:
    """Spandrel itself, made importable where torchvision is broken.

    Raises:
        MissingExtraError: It is not installed.
    """
    if any(importlib.util.find_spec(package) is None for package in ("spandrel", "torchvision")):
        raise MissingExtraError("no network of srquant's own has these weights; trying spandrel's", "spandrel")
    make_importable()
    return importlib.import_module("spandrel")
