"""A page about a bench: what its records hold, and pictures where its models were kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from srquant.api import pick_device
from srquant.bench.records import CellRecord, Runs, read_records, record_path
from srquant.bench.suites import suite_named
from srquant.bench.tables import grouped
from srquant.images.finding import find_pairs
from srquant.images.pairs import Pair
from srquant.learning.identity import digest_of_network
from srquant.model import Model, load
from srquant.pages.comparing import enlarged
from srquant.pages.comparison import Comparison
from srquant.pages.contenders import Contender
from srquant.pages.contents import Layers, Scene
from srquant.pages.describing_runs import describe, distinct, layers_of_record, network_title, quantized_in, title_of
from srquant.pages.layers import layers_of, measured_inputs
from srquant.pages.pictures import BUDGET
from srquant.pages.rendering import write_page
from srquant.support.errors import ArgumentError, UnknownNameError
from srquant.support.files import require_apart, require_writable
from srquant.support.progress import bar

_PICTURES = 5
"""That are shown unless some are asked for: those on which methods differ most."""
_MODELS = 8
"""Of one network, whose pictures are shown: those of the width that most methods have first."""


@dataclass(frozen=True)
class _Network:
    """What is known of one network of a bench.

    Args:
        records: On the same data.
        kept: The models that can be opened, by the titles of their records.
        model: The float network, if it was given.
        pairs: Pictures to show.
    """

    records: Sequence[CellRecord]
    kept: Mapping[str, Model]
    model: Model | None
    pairs: Sequence[Pair]

    @cached_property
    def title(self) -> str:
        """Of the network."""
        return network_title(self.records[0])

    @cached_property
    def shown(self) -> dict[str, Model]:
        """Models whose pictures are shown, by title, in the order of tables."""
        widths = Counter(record.bits for record in quantized_in(self.records))
        own = [record for record in quantized_in(self.records) if title_of(record) in self.kept]
        first = sorted(own, key=lambda record: -widths[record.bits])[:_MODELS]
        return {title_of(record): self.kept[title_of(record)] for record in own if record in first}


def report(
    runs: Runs | Path | str,
    output: Path | str,
    *,
    networks: Sequence[Model | Path | str] = (),
    data: Sequence[Path | str] = (),
    images: Sequence[str] = (),
    suite: str | None = None,
    device: str = "auto",
) -> Path:
    """Write a page about a bench: scores with losses, quality against cost, pictures, layers, curves, provenance.

    The page is one file that needs no network. The same records, models and pictures give the same bytes.

    Args:
        runs: The records, or the folder where they are.
        output: An ``.html`` file.
        networks: The float networks of the bench, opened, or their files: shown beside the models made of them.
        data: The folders that were scored on; pictures of them are enlarged by the models that the bench kept.
        images: File names of the pictures to show; up to five on which methods differ most if none is named.
        suite: Only what belongs to this table of a paper.
        device: Where to compute.

    Returns:
        The page's path.

    Raises:
        ArgumentError: There are no records, none of the suite, or a network is of none of them.
        UnknownNameError: A picture is not in the data.
        SrquantError: A network or a picture cannot be opened, or the page not be written.
    """
    output = Path(output)
    if output.suffix != ".html":
        raise ArgumentError(f"output={output}: pages are written as .html files; give a name that ends so")
    found = runs if isinstance(runs, Runs) else read_records(runs)
    groups = [distinct(records) for records in grouped(found, None if suite is None else suite_named(suite))]
    if not groups:
        raise ArgumentError(f"{found.folder} holds no records of {suite or 'a bench'}; srquant bench run makes them")
    require_apart(output, *(Path(each) for each in networks if not isinstance(each, Model)), *_files_of(found))
    require_apart(output, *map(Path, data), below=True)
    require_writable(output)
    floats = _floats(networks, groups)
    gathered = [_gathered(found, records, floats, data, images, device) for records in groups]
    _require_found(images, gathered)
    page = describe(groups, suite)
    scenes = tuple(scene for network in gathered for scene in _scenes(network, gathered, device))
    layers = tuple(layers for network in gathered for layers in _layers(network, several=len(groups) > 1))
    remarks = page.remarks
    if not scenes:
        remarks += (
            "No pictures: they are enlarged by models that srquant bench run --keep-models kept, from the folders that "
            "are given by --data.",
        )
    return write_page(replace(page, scenes=scenes, layers=layers, remarks=remarks), output)


def _files_of(runs: Runs) -> Iterator[Path]:
    """The records and models that may be read."""
    for record in runs:
        yield record_path(runs.folder, record)
        if (model := runs.model_path(record)) is not None:
            yield model


def _floats(networks: Sequence[Model | Path | str], groups: Sequence[Sequence[CellRecord]]) -> dict[str, Model]:
    """Float networks by digest.

    Raises:
        ArgumentError: One is not of the bench.
    """
    known = {records[0].network.digest: records[0].network.name for records in groups}
    found: dict[str, Model] = {}
    for each in networks:
        model = each if isinstance(each, Model) else load(each)
        digest = digest_of_network(model.network)
        if digest not in known:
            names = ", ".join(sorted({*known.values()}))
            raise ArgumentError(f"{model.source} is no network of this bench, whose networks are: {names}")
        found[digest] = model
    return found


def _gathered(
    runs: Runs,
    records: Sequence[CellRecord],
    floats: Mapping[str, Model],
    data: Sequence[Path | str],
    images: Sequence[str],
    device: str,
) -> _Network:
    paths = {title_of(record): runs.model_path(record) for record in quantized_in(records)}
    kept = {title: load(path).to(pick_device(device)) for title, path in paths.items() if path is not None}
    names = {name for record in records for scores in record.data for name in scores.images}
    folders = [folder for path in data for folder in find_pairs(path, records[0].network.scale)]
    pairs = {pair.name: pair for folder in folders for pair in folder if pair.name in names}
    chosen = [pairs[name] for name in images if name in pairs] if images else _most_telling(records, pairs)
    return _Network(records, kept, floats.get(records[0].network.digest), chosen)


def _most_telling(records: Sequence[CellRecord], pairs: Mapping[str, Pair]) -> list[Pair]:
    """The pictures on which methods differ most, in the order of the data."""
    values: dict[str, list[float]] = {name: [] for name in pairs}
    for record in quantized_in(records):
        for scores in record.data:
            for name, value in zip(scores.images, scores.scores["psnr"], strict=True):
                if name in values:
                    values[name].append(value)
    spread = {name: max(own) - min(own) for name, own in values.items() if own and max(own) < float("inf")}
    chosen = sorted(spread, key=lambda name: -spread[name])[:_PICTURES]
    return [pair for name, pair in pairs.items() if name in chosen]


def _require_found(images: Sequence[str], networks: Sequence[_Network]) -> None:
    known = {pair.name for network in networks for pair in network.pairs}
    for name in images:
        if name not in known:
            scored = {
                each for net in networks for record in net.records for data in record.data for each in data.images
            }
            raise UnknownNameError("picture", name, scored - {name})


def _scenes(network: _Network, networks: Sequence[_Network], device: str) -> Iterator[Scene]:
    """Pictures of one network, enlarged by its models."""
    count = sum(len(each.pairs) for each in networks if each.shown)
    if not network.shown:
        return
    contenders = [Contender(title, model, 0) for title, model in network.shown.items()]
    if network.model is not None:
        contenders.insert(0, Contender("float", network.model.to(pick_device(device)), 0))
    comparison = Comparison(tuple(contenders))
    tiles = {
        name: scores.scored.get("tile")
        for record in network.records
        for scores in record.data
        for name in scores.images
    }
    with bar("Enlarging", len(contenders) * len(network.pairs)) as shown:
        for pair in network.pairs:
            scored, _ = enlarged(comparison, pair, BUDGET // count, shown, tiles.get(pair.name))
            name = f"{scored.name}, {network.title}" if len(networks) > 1 else scored.name
            yield replace(scored.scene, name=name)


def _layers(network: _Network, *, several: bool) -> Iterator[Layers]:
    """Layers of all models of one network: of those that were kept with their ranges."""
    seen = {}
    if network.model is not None and network.kept and network.pairs:
        seen = measured_inputs(network.model, [pair.high for pair in network.pairs], network.model.scale)
    for record in quantized_in(network.records):
        found = layers_of_record(record)
        model = network.kept.get(title_of(record))
        if model is not None:
            losses = {row.name: row.loss for row in found.rows if row.loss is not None}
            found = replace(layers_of(found.title, model, losses, seen), note=found.note)
        if found.rows or found.note:
            yield replace(found, title=f"{found.title}, {network.title}" if several else found.title)
