"""The tables of papers as grids: their networks, methods, bits, data and protocol.

What is not at hand is named and left out; the rest of the table is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from srquant.analysis.published import PublishedRow, all_published
from srquant.api import configure
from srquant.bench.cells import DataSet, Subject, published_name
from srquant.images.calibration import Calibration
from srquant.images.pairs import PairFolder
from srquant.methods import METHODS, Method
from srquant.methods.base import EdgeProtocol
from srquant.model import Model
from srquant.support.errors import ArgumentError, UnknownNameError
from srquant.support.overriding import override

Dialect = Literal["ssim", "ssim_adabm"]
_ALIASES = {"b100": "BSD100", "bsds100": "BSD100", "bsd100": "BSD100"}
"""Other names of data sets, in lower case."""
_FOUR = ("Set5", "Set14", "BSD100", "Urban100")
_LARGE = ("Urban100", "Test2K", "Test4K")
"""Data sets that AdaBM's code, and so OAPTQ's tables, enlarge patch by patch."""
_PATCHWISE = (96, 0)
"""Size and overlap of these patches, in LR pixels."""


@dataclass(frozen=True)
class Suite:
    """A table of a paper.

    Args:
        name: On the command line.
        source: The paper and the table, as in the published rows.
        about: What it shows.
        networks: Their published names and scales.
        rows: Methods, with fields after a colon, by the titles that the table has for them.
        bits: Of weights and activations.
        data: Names of the data sets.
        edges: The protocol of the network's ends.
        dialect: Which SSIM the table prints.
        patches: How many calibration patches.
        patch_size: Their height and width; those of ``patch_sizes`` for other networks.
        patch_sizes: By the published name of the network.
        patchwise: Data sets that are enlarged in tiles of 96×96 without overlap.
        costs: Whether the table is of seconds, latency and storage, not of scores.
        note: What else is known of the protocol, or differs here.
    """

    name: str
    source: str
    about: str
    networks: tuple[tuple[str, int], ...]
    rows: Mapping[str, str]
    bits: tuple[tuple[int, int], ...]
    data: tuple[str, ...]
    edges: EdgeProtocol = "8bit"
    dialect: Dialect = "ssim_adabm"
    patches: int = 100
    patch_size: int = 96
    patch_sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    patchwise: tuple[str, ...] = _LARGE
    costs: bool = False
    note: str = ""

    def methods(self, settings: Iterable[str] = ()) -> tuple[list[tuple[str, Method]], list[str]]:
        """Titles and configurations of the methods that there are, all at the first bits, then at the next; and titles
        of those that there are not.

        Args:
            settings: Further ``field=value`` for every method that has the field.

        Raises:
            UnknownNameError: No method of the suite has such a field.
            ArgumentError: A value breaks its rule.
        """
        known = {title: text.partition(":") for title, text in self.rows.items()}
        missing = [f"{title} ({name})" for title, (name, _, _) in known.items() if name not in METHODS]
        made: list[tuple[str, Method]] = []
        for weights, activations in self.bits:
            for title, (name, _, fields) in known.items():
                if name in METHODS:
                    made.append((title, self._configured(name, fields, weights, activations)))
        return apply(made, settings), missing

    def _configured(self, name: str, fields: str, weights: int, activations: int) -> Method:
        given = [each for each in fields.split(",") if each]
        different = weights if weights != activations else None
        return configure(name, activations, weight_bits=different, edges=self.edges, settings=given)

    def published(self) -> list[PublishedRow]:
        """The table's own rows."""
        return [row for row in all_published() if row.source == self.source]

    def describe(self) -> str:
        """The protocol in a few lines."""
        networks = ", ".join(f"{name} ×{scale}" for name, scale in self.networks)
        bits = ", ".join(f"W{weights}A{activations}" for weights, activations in self.bits)
        sizes = "".join(f", {size}×{size} for {name}" for name, size in self.patch_sizes.items())
        dialect = "AdaBM's" if self.dialect == "ssim_adabm" else "BasicSR's"
        tiled = [name for name in self.data if name in self.patchwise]
        lines = [
            f"{self.name}: {self.about} ({self.source})",
            f"  networks: {networks}",
            f"  methods: {', '.join(self.rows)} at {bits}, edges {self.edges}",
            f"  data: {', '.join(self.data)}; SSIM in {dialect} dialect",
            f"  calibration: {self.patches} patches of {self.patch_size}×{self.patch_size}{sizes}",
        ]
        lines += [f"  {', '.join(tiled)}: enlarged in tiles of 96×96 without overlap"] if tiled else []
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])


def apply(methods: Sequence[tuple[str, Method]], settings: Iterable[str]) -> list[tuple[str, Method]]:
    """Give every method those of some fields that it has.

    Raises:
        UnknownNameError: No method has one of them.
        ArgumentError: A value breaks its rule.
    """
    made = list(methods)
    for text in settings:
        last: UnknownNameError | None = None
        taken = False
        for number, (title, method) in enumerate(made):
            try:
                made[number] = title, override(method, [text])
                taken = True
            except UnknownNameError as error:
                last = error
        if not taken and last is not None:
            raise last
    return made


_OAPTQ_ROWS = {
    "MinMax": "minmax",
    "Percentile": "percentile",
    "MSE": "mse",
    "PTQ4SR": "ptq4sr",
    "AdaBM": "adabm",
    "OAPTQ": "oaptq",
}
_TRANSFORMER = "scope=transformer"
_RDN_PATCH = {"RDN": 72}

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "oaptq-table1",
            "OAPTQ, table 1",
            "post-training methods, first, upsampler and last convolutions at 8 bits",
            (("EDSR-baseline", 4), ("RDN", 4)),
            _OAPTQ_ROWS,
            ((6, 6), (4, 4)),
            _FOUR,
            patch_sizes=_RDN_PATCH,
        ),
        Suite(
            "oaptq-table2",
            "OAPTQ, table 2",
            "large pictures, first and last layers float",
            (("EDSR-baseline", 4), ("SRResNet", 4)),
            {title: _OAPTQ_ROWS[title] for title in ("PTQ4SR", "AdaBM", "OAPTQ")},
            ((8, 6), (4, 4)),
            ("Test2K", "Test4K"),
            edges="float",
            note="Test2K and Test4K are made of DIV8K by: srquant bench large-pictures DIV8K/ -o data/",
        ),
        Suite(
            "oaptq-table3",
            "OAPTQ, table 3",
            "beside methods that train with quantization, first and last layers float",
            (("EDSR-baseline", 4),),
            {"PAMS": "pams", "DAQ": "daq", "DDTB": "ddtb", "ODM": "odm", "OAPTQ": "oaptq"},
            ((4, 4),),
            _FOUR,
            edges="float",
        ),
        Suite(
            "oaptq-table4",
            "OAPTQ, table 4",
            "piecewise-linear quantizer off and on × no, vanilla and sensitivity-aware finetuning",
            (("EDSR-baseline", 4),),
            {
                "MinMax": "minmax",
                "VFT": "oaptq:quantizer=uniform,sensitivity=uniform",
                "SAFT": "oaptq:quantizer=uniform",
                "PLQ": "plq",
                "PLQ+VFT": "oaptq:sensitivity=uniform",
                "PLQ+SAFT": "oaptq",
            },
            ((4, 4),),
            _FOUR,
            note="PLQ+VFT is not in the paper's table",
        ),
        Suite(
            "oaptq-table5",
            "OAPTQ, table 5",
            "what quantizing EDSR to 4 bits costs: seconds, latency, storage",
            (("EDSR-baseline", 4),),
            {title: _OAPTQ_ROWS[title] for title in ("PTQ4SR", "AdaBM", "OAPTQ")},
            ((4, 4),),
            _FOUR,
            costs=True,
            note="the paper measured on an RTX 2080 Ti; its storage is AdaBM's count, without breakpoints",
        ),
        Suite(
            "2dquant-table3",
            "2DQuant (NeurIPS 2024), table 3",
            "linear maps and attention products of SwinIR-light",
            tuple(("SwinIR-light", scale) for scale in (2, 3, 4)),
            {
                "MinMax": f"minmax:{_TRANSFORMER},weights.symmetric=false",
                "Percentile": f"percentile:{_TRANSFORMER},weights.symmetric=false",
                "DBDC+Pac": f"ptq4sr:{_TRANSFORMER}",
                "DOBI": f"dobi:{_TRANSFORMER}",
                "2DQuant": f"2dquant:{_TRANSFORMER}",
            },
            ((4, 4), (3, 3), (2, 2)),
            (*_FOUR, "Manga109"),
            dialect="ssim",
            patch_size=64,
            patchwise=(),
            note="the paper crops its training pictures anew in every step; --patches 96000 gives as many as it takes",
        ),
    )
}
"""By name."""


def suite_named(name: str) -> Suite:
    """The suite of that name.

    Raises:
        UnknownNameError: There is none.
    """
    if name not in SUITES:
        raise UnknownNameError("suite", name, SUITES)
    return SUITES[name]


@dataclass(frozen=True)
class Fitted:
    """A suite with what is at hand.

    Args:
        requests: Networks, each with the titles and configurations of its methods.
        missing: What is not at hand and how it is brought, a line each.
    """

    requests: list[tuple[Subject, list[tuple[str, Method]]]]
    missing: tuple[str, ...]


def fit(
    suite: Suite,
    models: Sequence[Model],
    folders: Mapping[int, Sequence[PairFolder]],
    calibration: Mapping[int, Calibration],
    photographs: Path | None,
    settings: Iterable[str] = (),
    further: tuple[str, ...] = (),
) -> Fitted:
    """Put together what of a suite is at hand.

    Args:
        suite: The table.
        models: Float networks; those that the table has not are left out.
        folders: Data sets by scale; those that the table has not are left out.
        calibration: Patches, by the number of the model; those that the table has not need none.
        photographs: A folder, for methods that learn with ground truth.
        settings: Further ``field=value`` for every method that has the field.
        further: Scores beside PSNR and SSIM, by name.

    Raises:
        ArgumentError: Nothing of the table can be computed.
    """
    methods, unknown = suite.methods(settings)
    missing = [f"{title} is no method here; install the package that brings it" for title in unknown]
    names = [(published_name(model.network), model.scale) for model in models]
    for name, scale in suite.networks:
        if (name, scale) not in names:
            missing.append(f"{name} ×{scale}: no network of these hyper-parameters was given; give its weights")
    for model, own in zip(models, names, strict=True):
        if own not in suite.networks:
            missing.append(f"{model.source} is no network of this table ({own[0] or model.network.name} ×{own[1]})")
    requests: list[tuple[Subject, list[tuple[str, Method]]]] = []
    for number, (model, own) in enumerate(zip(models, names, strict=True)):
        if own in suite.networks:
            found = {canonical(folder.name): folder for folder in folders.get(model.scale, ())}
            missing += [
                f"{data} ×{model.scale} is in no folder of data; give a folder that holds it"
                for data in suite.data
                if data not in found
            ]
            sets = tuple(_data_set(suite, name, found[name], further) for name in suite.data if name in found)
            if sets:
                requests.append((Subject(model, calibration[number], sets, photographs), methods))
    if not requests or not methods:
        raise ArgumentError(f"nothing of {suite.name} can be computed: {'; '.join(dict.fromkeys(missing))}")
    return Fitted(requests, tuple(dict.fromkeys(missing)))


def _data_set(suite: Suite, name: str, folder: PairFolder, further: tuple[str, ...]) -> DataSet:
    tile, overlap = _PATCHWISE if name in suite.patchwise else (None, None)
    return DataSet(folder, tile, overlap, further)


def canonical(name: str) -> str:
    """A data set's name as tables have it: ``bsds100`` is BSD100."""
    known = {each.lower(): each for suite in SUITES.values() for each in suite.data} | _ALIASES
    return known.get(name.lower(), name)
