"""The models of a comparison: opened, named, and told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from srquant.api import tiling
from srquant.engines.exported import Exported
from srquant.images.enlarging import Upscaler
from srquant.images.tiling import Tiling
from srquant.model import Model
from srquant.model.observing import first_checked
from srquant.pages.contents import Provenance
from srquant.pages.wording import size
from srquant.support.errors import ArgumentError


@dataclass(frozen=True)
class Contender:
    """A model with a title.

    Args:
        title: No other has it.
        model: A float network, a quantized one, or an exported file in an engine.
        file_bytes: Of its file; counted if it has none.
    """

    title: str
    model: Model | Exported
    file_bytes: int

    @property
    def is_float(self) -> bool:
        """Whether nothing of it is quantized."""
        return isinstance(self.model, Model) and self.model.record is None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The method's resolved configuration; empty for a float network."""
        if isinstance(self.model, Exported):
            return self.model.contract.settings
        return {} if self.model.record is None else self.model.record.settings

    @property
    def widths(self) -> tuple[int, int] | None:
        """Bits of weights and activations; None for a float network."""
        if "bits" not in self.settings:
            return None
        activation = int(self.settings["bits"])
        return int(self.settings.get("weight_bits") or activation), activation

    @property
    def bits(self) -> str:
        """As W4A4; ``float`` where nothing is quantized."""
        return "W{}A{}".format(*self.widths) if self.widths else "float"

    def upscaler(self) -> Upscaler:
        """What enlarges images; a float network's first output is looked at."""
        if isinstance(self.model, Model) and self.is_float:
            return first_checked(self.model.network, self.model)
        return self.model

    def tiling(self, tile: int | None) -> Tiling | None:
        """How images are cut; None for those that are enlarged at once.

        Raises:
            ArgumentError: The tile breaks its rule.
        """
        if tile is None and (isinstance(self.model, Model) or self.model.contract.tile is None):
            return None
        return tiling(self.model, 192 if tile is None else tile)

    def provenance(self) -> Provenance:
        """Where it is from."""
        return Provenance(self.title, tuple(self._facts()), flat(self.settings))

    def _facts(self) -> Iterable[tuple[str, str]]:
        if isinstance(self.model, Exported):
            contract = self.model.contract
            yield "network", f"{contract.network} ×{contract.scale}, exported"
            yield "made from", contract.source
            yield "method", contract.method
            yield "calibrated on", contract.calibration
        else:
            network, record = self.model.network, self.model.record
            yield "network", f"{network.name} ×{self.model.scale}, {self.model.sizes().parameters:,} parameters"
            if record is None:
                yield "weights", self.model.source
            else:
                yield "made from", record.source
                yield "method", record.method
                yield "calibrated on", record.calibration
                yield "quantized", f"{len(self.model.layers())} layers, {record.coverage:.1%} of the multiply-adds"
        yield "file", size(self.file_bytes)
        if versions := _versions(self.model):
            yield "made with", ", ".join(f"{name} {version}" for name, version in versions.items())


def _versions(model: Model | Exported) -> Mapping[str, str]:
    if isinstance(model, Exported):
        return model.contract.versions
    return {} if model.record is None else model.record.versions


def flat(settings: object, prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Settings as field and value, dots reaching into fields that have fields of their own."""
    if not isinstance(settings, Mapping):
        return ((prefix, str(settings)),)
    items = cast("Mapping[str, object]", settings).items()
    return tuple(row for name, value in items for row in flat(value, f"{prefix}.{name}" if prefix else name))


def with_titles(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by a title each: the stem of the name, or as much of the path as tells them apart.

    Raises:
        ArgumentError: A file is given twice.
    """
    found = list(paths)
    for number, path in enumerate(found):
        if path.resolve() in [other.resolve() for other in found[:number]]:
            raise ArgumentError(f"{path} is given twice; give each model once")
    stems = [path.stem for path in found]
    titles = [path.stem if stems.count(path.stem) == 1 else str(path.with_suffix("")) for path in found]
    unlike = len({*titles}) == len(titles)
    return {title if unlike else str(path): path for title, path in zip(titles, found, strict=True)}
