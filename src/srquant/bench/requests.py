"""What was asked for, in words and paths, as networks with patches, data and configured methods."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from srquant.api import configure
from srquant.bench.cells import DataSet, Subject, published_name, widths
from srquant.bench.suites import Suite, fit
from srquant.images.calibration import Calibration
from srquant.images.finding import find_pairs
from srquant.images.pairs import PairFolder
from srquant.methods import Method
from srquant.methods.base import EdgeProtocol
from srquant.model import Model, load
from srquant.support.errors import ArgumentError, ImageError, SuiteWarning
from srquant.support.settings import check

Requests = list[tuple[Subject, list[tuple[str, Method]]]]
"""Networks, each with the titles and configurations of its methods."""
_PATCHES = 100
_Tile = Annotated[int, Field(ge=16, le=1_000_000)] | None
_Overlap = Annotated[int, Field(ge=0, le=1_000_000)] | None


@dataclass(frozen=True)
class PatchSource:
    """Where calibration patches come from; see :func:`srquant.bench.run`."""

    low: Calibration | Path | str | None
    high: Path | str | None
    count: int | None
    size: int | None
    seed: int

    @property
    def photographs(self) -> Path | None:
        """The folder of them, which methods that learn with ground truth are given."""
        return None if self.high is None else Path(self.high)

    def of_suite(self, suite: Suite, network: str) -> PatchSource:
        """As many and as large as a suite has them, where nothing else is said."""
        count = suite.patches if self.count is None else self.count
        size = suite.patch_sizes.get(network, suite.patch_size) if self.size is None else self.size
        return replace(self, count=count, size=size)

    def open(self, scale: int) -> Calibration:
        """Patches for networks of a scale.

        Raises:
            ArgumentError: Both folders were given, or none.
            ImageError: A folder holds no images that do.
        """
        if (self.low is None) == (self.high is None):
            raise ArgumentError("give either calibration (LR images) or calibration_hr (photographs)")
        if isinstance(self.low, Calibration):
            return self.low
        count = _PATCHES if self.count is None else self.count
        if self.low is not None:
            return Calibration.from_low_resolution(self.low, count=count, size=self.size, seed=self.seed)
        assert self.high is not None
        return Calibration.from_photographs(self.high, scale, count=count, size=self.size, seed=self.seed)


@dataclass(frozen=True)
class Sources:
    """What cells are calibrated and scored on; see :func:`srquant.bench.run`."""

    data: Sequence[Path | str]
    patches: PatchSource
    further: tuple[str, ...] = ()


def grid_requests(
    models: Sequence[Model],
    titled: list[tuple[str, Method]],
    sources: Sources,
    tile: int | None,
    overlap: int | None,
) -> Requests:
    """All methods on every network.

    Raises:
        SrquantError: What was given cannot be used.
    """
    check("tile", tile, _Tile)
    check("overlap", overlap, _Overlap)
    if overlap is not None and tile is None:
        raise ArgumentError(f"overlap={overlap} is of tiles, and each image is given at once; give tile=96 too")
    if not titled:
        raise ArgumentError("there are no methods; name some, such as minmax or plq:quantile=0.995, or a suite")
    folders = found_pairs(sources.data, {model.scale for model in models})
    return [
        (
            Subject(
                model,
                sources.patches.open(model.scale),
                tuple(DataSet(each, tile, overlap, sources.further) for each in folders[model.scale]),
                sources.patches.photographs,
            ),
            titled,
        )
        for model in models
    ]


def suite_requests(suite: Suite, models: Sequence[Model], sources: Sources, settings: Iterable[str]) -> Requests:
    """What of a suite is at hand.

    Raises:
        SrquantError: Nothing is, or what was given cannot be used.
    """
    scales = {scale for _, scale in suite.networks}
    folders = found_pairs(sources.data, scales, all_needed=False)
    patches = {
        number: sources.patches.of_suite(suite, published_name(model.network)).open(model.scale)
        for number, model in enumerate(models)
        if (published_name(model.network), model.scale) in suite.networks
    }
    fitted = fit(suite, models, folders, patches, sources.patches.photographs, settings, sources.further)
    for line in fitted.missing:
        warnings.warn(f"{suite.name}: {line}", SuiteWarning, stacklevel=3)
    return fitted.requests


def refuse_beside_suite(suite: str, **given: object) -> None:
    """Refuse what a suite says itself.

    Raises:
        ArgumentError: Something was given.
    """
    for name, value in given.items():
        if value is not None and value != ():
            raise ArgumentError(f"{name}={value!r} is what the suite {suite} says itself; leave one of them out")


def configured(
    methods: Sequence[str | Method] | Mapping[str, Method],
    bits: Sequence[str | int] = (),
    edges: EdgeProtocol | None = None,
) -> Iterator[tuple[str, Method]]:
    """Titles and configurations: all methods at the first bits, then at the next.

    Raises:
        UnknownNameError: There is no such method or field.
        ArgumentError: A value breaks its rule, or a field is given two values.
    """
    given: Iterable[tuple[str, str | Method]] = (
        methods.items() if isinstance(methods, Mapping) else ((m if isinstance(m, str) else m.name, m) for m in methods)
    )
    given = list(given)
    for width in widths(bits) or [None]:
        for title, method in given:
            yield title, _configured(method, width, edges)


def _configured(method: str | Method, width: tuple[int, int] | None, edges: EdgeProtocol | None) -> Method:
    values: dict[str, object] = {} if edges is None else {"edges": edges}
    if width is not None:
        values |= {"bits": width[1]} | ({"weight_bits": width[0]} if width[0] != width[1] else {})
    if isinstance(method, Method):
        return replace(method, **values) if values else method
    name, _, fields = method.partition(":")
    return configure(name, settings=split_fields(fields), **values)  # pyright: ignore[reportArgumentType]


def split_fields(text: str) -> list[str]:
    """Assignments with commas between; a value may hold commas too: ``layers=a=8,b=4,quantile=0.9`` has two."""
    parts: list[str] = []
    for part in filter(None, text.split(",")):
        name, equals, _ = part.partition("=")
        if parts and not (equals and name.replace(".", "_").isidentifier()):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def opened(networks: Sequence[Model | Path | str]) -> list[Model]:
    """Models of files.

    Raises:
        SrquantError: There are none, or one cannot be opened.
    """
    if not networks:
        raise ArgumentError("there are no networks; give files of float weights")
    return [each if isinstance(each, Model) else load(each) for each in networks]


def found_pairs(
    data: Sequence[Path | str], scales: set[int], *, all_needed: bool = True
) -> dict[int, list[PairFolder]]:
    """The sets of each scale. A folder that holds other scales only is passed over, if another has this one.

    Args:
        data: Folders of sets.
        scales: Of the networks.
        all_needed: Whether each scale must have a set.

    Raises:
        ImageError: A scale has no set, or a folder none of any scale that is needed.
    """
    if not data:
        raise ImageError("no data to score on; give folders with HR and LR")
    found: dict[int, list[PairFolder]] = {scale: [] for scale in scales}
    for path in data:
        errors: list[ImageError] = []
        for scale in sorted(scales):
            try:
                found[scale] += find_pairs(path, scale)
            except ImageError as error:
                errors.append(error)
        if len(errors) == len(scales):
            raise errors[0]
    for scale, folders in found.items():
        if not folders and all_needed:
            raise ImageError(f"there is a network of scale {scale}, and no data of it; give some, or leave it out")
        names = [folder.name for folder in folders]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ImageError(f"two data sets are called {', '.join(sorted(twice))}; give one of them another name")
    return found
