"""What a float network tells about itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from threading import get_ident
from typing import Annotated, Any, ClassVar, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from srquant.support.errors import NetworkError
from srquant.support.overriding import override
from srquant.support.watching import Watched

State = dict[str, Tensor]

Scale = Annotated[int, Field(ge=1, le=32)]
"""How many times larger the output is."""
ValueRange = Annotated[float, Field(gt=0, le=65_535)]
"""Largest value of the input and output images."""
Fraction = Annotated[float, Field(ge=0, le=1)]
"""Of the value range."""
Channels = Annotated[int, Field(ge=1, le=65_536)]
Count = Annotated[int, Field(ge=1, le=4096)]
"""Of blocks, layers and the like."""
_SMALL = 256
"""Whole numbers and parameters that a file of weights need not be large for."""
Alignment = Annotated[int, Field(ge=1, le=256)]
"""What tile corners must be multiples of."""
_PROBE = 48


@dataclass(frozen=True)
class Edges:
    """Names of the multiplications at a network's ends, which the edge protocols treat apart.

    ``8bit`` (OAPTQ table 1) gives ``first``, ``upsampler`` and ``last`` 8 bits; ``float`` (OAPTQ tables 2 and 3)
    leaves ``first``, ``after_body``, ``upsampler`` and ``last`` untouched.
    """

    first: tuple[str, ...] = ()
    after_body: tuple[str, ...] = ()
    upsampler: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    def role(self, name: str) -> str:
        """``first``, ``after_body``, ``upsampler``, ``last`` or ``body``."""
        for role in ("first", "after_body", "upsampler", "last"):
            if name in getattr(self, role):
                return role
        return "body"


class SRNetwork(nn.Module):
    """A float super-resolution network: ``n 3 h w`` in [0, value_range] to ``n 3 scale·h scale·w`` in the same range.

    It takes any height and width from 1 pixel on, and knows nothing of quantization. Every multiplication is a
    ``Conv2d``, ``ConvTranspose2d``, ``Linear`` or :class:`~srquant.networks.modules.MatMul`.

    A new network is a new file in this folder: a subclass with the attributes below. :meth:`read` recognises
    published weights and translates their layout, so that no file needs an architecture flag.
    """

    name: ClassVar[str]
    """Name in files and on the command line."""
    Config: ClassVar[type]
    """Frozen dataclass of the hyper-parameters; ``cls(config)`` builds the network."""

    untold: ClassVar[tuple[str, ...]] = ("value_range",)
    """Fields of ``Config`` that published weights do not tell, or not always, so that they are assumed."""

    config: Any
    scale: int
    value_range: float
    """Largest value of the input and output images: 1 or 255."""
    alignment: int = 1
    """Tiles whose corners are multiples of this are computed as inside the whole image."""
    receptive_field: int | None = None
    """How many pixels of the input, in each direction, can change an output pixel; None when it is not bounded."""

    def __init__(self, config: Any = None) -> None:
        """Take scale and value range from the hyper-parameters, if they are given."""
        super().__init__()
        if config is not None:
            self.config, self.scale, self.value_range = config, config.scale, config.value_range

    @property
    def edges(self) -> Edges:
        """The network's ends."""
        raise NotImplementedError(f"{type(self).__name__} lacks edges")

    def edges_seen(self, watched: Watched) -> Edges:
        """The network's ends, for those that have to look for them in a forward pass.

        Args:
            watched: One on :meth:`probe`.
        """
        return self.edges

    def probe(self) -> Tensor:
        """A small image of noise, ``1 3 h h`` in the network's value range: 48 pixels, or the next multiple of the
        alignment. It is always the same.
        """
        size = _PROBE + -_PROBE % self.alignment
        noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        device = next(self.parameters()).device
        return noise.to(device, memory_format=torch.channels_last) * self.value_range

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of the modules whose outputs finetuning may compare."""
        raise NotImplementedError(f"{type(self).__name__} lacks feature_layers")

    @classmethod
    def read(cls, state: State, value_range: float | None) -> tuple[Any, State] | None:
        """Recognise weights of this network in any of its published layouts.

        Args:
            state: Keys and tensors of a checkpoint.
            value_range: What the user says of the network's input range; None to deduce it.

        Returns:
            The hyper-parameters and the weights under this class's own keys, or None if these are not its weights.
        """
        raise NotImplementedError(f"{cls.__name__} lacks read()")

    @classmethod
    def configured(cls, config: Any, state: State, settings: Iterable[str]) -> tuple[Any, State]:
        """Set hyper-parameters as the user says them.

        Args:
            config: Hyper-parameters, from :meth:`read` or a file's header.
            state: Weights under this class's own keys.
            settings: Fields of ``Config``, as ``field=value``.

        Returns:
            Both, the weights changed only where a field decides some of them.

        Raises:
            UnknownNameError: There is no such field; the nearest is suggested.
            ArgumentError: A value breaks its field's rule.
        """
        return override(config, settings), state

    @classmethod
    def to_published(cls, state: State) -> State:
        """Weights under this class's own keys in the layout that other programs know.

        The two are the same unless a network takes apart what is published as one.
        """
        return state

    @classmethod
    def from_published(cls, state: State) -> State:
        """Undo :meth:`to_published`; weights that are under own keys already stay as they are."""
        return state

    @classmethod
    def build(cls, config: Any, state: Mapping[str, Tensor]) -> Self:
        """Make the network and fill it.

        Raises:
            NetworkError: Keys are missing or unexpected, or shapes disagree.
        """
        check_keys(cls.name, draft(cls, config, state).state_dict(), state)
        network = cls(config)
        own = network.state_dict()
        network.load_state_dict({key: state[key] for key in own})
        return network.eval()


def draft(kind: type[SRNetwork], config: Any, state: Mapping[str, Tensor]) -> SRNetwork:
    """A network without memory for its weights, to see whether given weights fit, however large it claims to be.

    Building it ends as soon as it has far more parameters than were given: a few too many are left to
    :func:`check_keys`, which names them.

    Raises:
        NetworkError: The hyper-parameters describe a larger network than that of the weights.
    """
    elements = sum(value.numel() for value in state.values())
    for name, number in _whole_numbers(config):
        if number > max(elements, _SMALL):
            raise NetworkError(f"{name}={number:,} is more than the weights given, of {elements:,} values, allow")
    thread, room = get_ident(), 2 * len(state) + _SMALL

    def count(_module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal room
        if parameter is not None and get_ident() == thread:
            room -= 1
            if room < 0:
                raise NetworkError(f"the hyper-parameters of {kind.name} describe a larger network than the weights do")

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return kind(config)
    except (RuntimeError, OverflowError, TypeError) as error:  # sizes that no tensor has
        raise NetworkError(f"no {kind.name} has these hyper-parameters: {str(error).splitlines()[0]}") from error
    finally:
        handle.remove()


def _whole_numbers(config: Any) -> Iterator[tuple[str, int]]:
    for field in fields(config):
        value: Any = getattr(config, field.name)
        numbers = cast(tuple[Any, ...], value if isinstance(value, tuple) else (value,))
        yield from ((field.name, number) for number in numbers if isinstance(number, int))


def check_keys(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Compare the keys and shapes a network has with those of given weights.

    Raises:
        NetworkError: They differ; the message lists what is missing, unexpected, and of another shape, or says that the
            weights are for images that are not RGB. Whole numbers are given where a network has fractions.
    """
    channels = next((found for key in own if (found := _other_channels(own[key], given.get(key)))), None)
    if channels is not None:
        way_out = "run its nn.Module on luma with Model.wrap in Python" if channels == 1 else "give weights for RGB"
        raise NetworkError(
            f"the weights look like {name}, but take images of {channels} channel{'s' if channels > 1 else ''}; "
            f"srquant's own {name} takes RGB: {way_out}"
        )
    shapes = [
        f"{key} is {list(given[key].shape)}, expected {list(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    problems = [
        _listing("missing keys", [key for key in own if key not in given]),
        _listing("unexpected keys", [key for key in given if key not in own]),
        _listing("shapes that disagree", shapes),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise NetworkError(f"the weights look like {name} but do not fit: " + "; ".join(found))
    check_kinds(name, own, given)


def _other_channels(own: Tensor, given: Tensor | None) -> int | None:
    """How many channels the images have, where a convolution that takes RGB is given with other inputs."""
    if given is None or own.ndim != 4 or given.ndim != 4 or own.shape[1] != 3 or given.shape[1] == 3:
        return None
    return given.shape[1] if given.shape[1] and own[:, 0].shape == given[:, 0].shape else None


def check_kinds(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse whole numbers where a network has fractions: codes of another quantizer mean nothing without its scales.

    Raises:
        NetworkError: There are some; the message lists them.
    """
    whole = [
        f"{key} ({str(given[key].dtype).removeprefix('torch.')})"
        for key in own
        if key in given and own[key].is_floating_point() and not given[key].is_floating_point()
    ]
    if whole:
        raise NetworkError(
            f"the weights look like {name} but are whole numbers: {_listing('', whole)[2:]}; give the float weights"
        )


def _listing(title: str, items: list[str], shown: int = 5) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return f"{title}: {', '.join(items[:shown])}{more}" if items else ""


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered children ``prefix.0``, ``prefix.1``, … the keys name."""
    numbers = {key[len(prefix) + 1 :].split(".")[0] for key in state if key.startswith(prefix + ".")}
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)
