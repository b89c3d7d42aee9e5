"""Which cells a grid has, and what decides each: networks × methods × bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from srquant.bench.records import FLOAT, NetworkRecord
from srquant.images.calibration import Calibration
from srquant.images.pairs import PairFolder
from srquant.learning.identity import digest_of_network
from srquant.learning.photographs import Photographs
from srquant.methods import Method
from srquant.methods.base import Data
from srquant.model import Model
from srquant.networks.base import SRNetwork
from srquant.support.digests import digest_of_settings
from srquant.support.errors import ArgumentError
from srquant.support.settings import to_json
from srquant.support.versions import versions

_PUBLISHED = {"edsr": "EDSR-baseline", "rdn": "RDN", "srresnet": "SRResNet", "swinir": "SwinIR-light"}
"""What papers call a network whose hyper-parameters are the defaults of its kind."""
_NO_SHAPE = ("scale", "value_range", "mean")
"""Hyper-parameters that papers' names leave open."""


@dataclass(frozen=True)
class DataSet:
    """A benchmark set, and how its images are enlarged.

    Args:
        folder: The pairs.
        tile: Height and width of tiles, in LR pixels; None enlarges each image at once.
        overlap: Of tiles; None for what the network needs.
        further: Scores beside PSNR and SSIM, by name; see :mod:`srquant.images.perceptual`.
    """

    folder: PairFolder
    tile: int | None = None
    overlap: int | None = None
    further: tuple[str, ...] = ()

    @property
    def decides(self) -> list[str | int | None]:
        """All that decides scores on it."""
        return [self.folder.digest(), self.tile, self.overlap, *self.further]

    @property
    def scored(self) -> dict[str, int]:
        """For records: what is not the usual."""
        given = {"tile": self.tile, "overlap": self.overlap}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Subject:
    """A float network, and what all its cells share.

    Args:
        model: The network.
        calibration: LR patches; None if no method needs them.
        data: What is scored on.
        photographs: A folder, for methods that learn with ground truth.
    """

    model: Model
    calibration: Calibration | None
    data: tuple[DataSet, ...]
    photographs: Path | None = None

    def given_to(self, method: Method) -> Data:
        """What a method is given.

        Raises:
            ArgumentError: It is not there.
            ImageError: The folder holds no photographs, or none is large enough.
        """
        if method.needs == "patches":
            if self.calibration is None:
                raise ArgumentError(f"{method.name} needs calibration patches; give calibration or calibration_hr")
            return self.calibration
        if self.photographs is None:
            raise ArgumentError(
                f"{method.name} learns with ground truth: give calibration_hr, a folder of photographs; LR images are "
                f"made of them by bicubic"
            )
        return method.open(self.photographs, self.model.scale)

    def record(self) -> NetworkRecord:
        """For records."""
        network, model = self.model.network, self.model
        return NetworkRecord(
            name=model.source,
            kind=network.name,
            published=published_name(network),
            scale=model.scale,
            parameters=model.sizes().parameters,
            digest=digest_of_network(network),
        )


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: a method on a network, or the float network itself.

    Args:
        subject: Number of its network in the grid.
        network: The same, for records.
        title: As it was asked for.
        order: Its number in the grid.
        method: None for the float network.
        identity: Digests and versions of all that decides it.
        given: What the method is given; None for the float network, and for a method that is given the patches that
            all of its network share.
        calibration: What it is given, in words.
        seed: Of the patches.
    """

    subject: int
    network: NetworkRecord
    title: str
    order: int
    method: Method | None
    identity: dict[str, str]
    given: Photographs | None = None
    calibration: str = ""
    seed: int = 0

    @property
    def key(self) -> str:
        """Digest of what decides it: what it is called, and where it stands in the grid, does not count."""
        return digest_of_settings(self.identity)

    @property
    def name(self) -> str:
        """As "oaptq W4A4 on edsr.pth"."""
        if self.method is None:
            return f"{FLOAT} on {self.network.name}"
        weights = self.method.weight_bits or self.method.bits
        return f"{self.title} W{weights}A{self.method.bits} on {self.network.name}"


@dataclass(frozen=True)
class Grid:
    """All cells, each once, the float networks first.

    Args:
        subjects: The networks.
        cells: Refer to them by number.
    """

    subjects: tuple[Subject, ...]
    cells: tuple[Cell, ...]


def plan(requests: Sequence[tuple[Subject, Sequence[tuple[str, Method]]]], device: str) -> Grid:
    """The cells of a grid. One that was asked for twice, under whatever titles, is there once, under its first.

    Args:
        requests: Networks, each with titles and methods.
        device: Kind of device that computes, ``cpu`` or ``cuda``.

    Raises:
        ArgumentError: A network is quantized already, or has a method and not what that is given.
        ImageError: A picture cannot be read.
    """
    floats: dict[str, Cell] = {}
    cells: dict[str, Cell] = {}
    subjects = tuple(subject for subject, _ in requests)
    for number, (subject, methods) in enumerate(requests):
        if subject.model.record is not None:
            raise ArgumentError(f"{subject.model.source} is quantized already; a bench takes float networks")
        network = subject.record()
        common = {
            "srquant": versions()["srquant"],
            "torch": torch.__version__,
            "device": device,
            "network": network.digest,
            "data": digest_of_settings([each.decides for each in subject.data]),
        }
        own = Cell(number, network, FLOAT, 0, None, common)
        floats.setdefault(own.key, own)
        digests: dict[Data, str] = {}
        for order, (title, method) in enumerate(methods, start=1):
            given = subject.given_to(method)
            if given not in digests:
                digests[given] = given.digest()
            identity = common | {
                "calibration": digests[given],
                "configuration": digest_of_settings(method.name, to_json(method)),
            }
            own = given if isinstance(given, Photographs) else None
            seed = given.seed if isinstance(given, Calibration) else 0
            cell = Cell(number, network, title, order, method, identity, own, given.describe(), seed)
            cells.setdefault(cell.key, cell)
    return Grid(subjects, (*floats.values(), *cells.values()))


def published_name(network: SRNetwork) -> str:
    """What papers call a network of these hyper-parameters; empty if none does. Whose training it is, it does not say.

    >>> published_name(EDSR(EDSRConfig(scale=2)))
    'EDSR-baseline'
    """
    if network.name not in _PUBLISHED:
        return ""
    usual, own = network.Config(), network.config
    shape = [each.name for each in fields(usual) if each.name not in _NO_SHAPE]
    return _PUBLISHED[network.name] if all(getattr(usual, name) == getattr(own, name) for name in shape) else ""


def widths(bits: Sequence[str | int]) -> list[tuple[int, int]]:
    """Bits of weights and of activations, of texts such as ``4`` and ``8/6``.

    Raises:
        ArgumentError: One is no number of bits.
    """
    found: list[tuple[int, int]] = []
    for text in map(str, bits):
        parts = text.split("/")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ArgumentError(f"bits={text!r} is no number of bits; write 4, or 8/6 for weights/activations")
        found.append((int(parts[0]), int(parts[-1])))
    return found
