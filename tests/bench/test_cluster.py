"""Cells on a Ray cluster of two nodes of this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.bench.helpers import PATIENCE, Fatal, Lingering, run_here, small_grid, without_times

from srquant.bench.cluster import RayCluster, compute_remotely, connect
from srquant.bench.luggage import Luggage
from srquant.bench.measuring import Wishes
from srquant.bench.running import run_grid
from srquant.bench.tasks import Task
from srquant.methods import METHODS
from srquant.support.errors import ArgumentError, MissingExtraError

ROOT = Path(__file__).parent.parent.parent
WISHES = Wishes(device="cpu", threads=1, keep_models=True)


def ray() -> Any:
    return pytest.importorskip("ray", reason="the extra cluster is absent: a bench on a Ray cluster is not tested")


@pytest.fixture(autouse=True)
def methods() -> Iterator[None]:
    for kind in (Fatal, Lingering):
        METHODS.register(kind)
    yield
    for kind in (Fatal, Lingering):
        del METHODS.registered[kind.name]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes that compute, and a head that does not."""
    ray()
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    ray().shutdown()
    made.shutdown()


def lose(cluster: Any, file: Path, lost: list[str]) -> None:
    """Take away the node on which a cell lingers, once it does."""
    began = time.monotonic()
    while not file.exists():
        if time.monotonic() - began > PATIENCE:
            return
        time.sleep(0.05)
    raylet = int(file.read_text())
    for node in list(cluster.worker_nodes):
        if any(each.process.pid == raylet for each in node.all_processes["raylet"]):
            cluster.remove_node(node, allow_graceful=False)
            lost.append(str(raylet))


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_a_node_and_a_process_are_lost_and_the_grid_ends_complete(
    cluster: Any, tmp_path: Path, low_images: Path
) -> None:
    grid = small_grid(
        *(tmp_path, low_images, "plq", f"lingering:file={tmp_path / 'lingers'}"),
        *(f"fatal:unless={tmp_path / 'killed'}", "srquant:finetuning.steps=2"),
    )
    lost: list[str] = []
    watching = threading.Thread(target=lose, args=(cluster, tmp_path / "lingers", lost))
    watching.start()
    with RayCluster(grid.subjects, WISHES, cluster.address) as team:
        assert team.device == "cpu"
        runs = run_grid(grid, tmp_path / "runs", WISHES, team=team)
    watching.join()
    assert len(lost) == 1 and (tmp_path / "killed").exists(), "both were lost"
    assert [record.reason for record in runs] == [""] * 5
    serial, _ = run_here(grid, tmp_path / "serial", threads=1, keep_models=True)
    assert without_times(runs.records) == without_times(serial.records)
    for record in runs.done[1:]:
        assert runs.model_path(record).read_bytes() == serial.model_path(record).read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_there_is_no_cluster() -> None:
    with pytest.raises(ArgumentError, match=r"there is no cluster .*; start one with: ray start --head, or give local"):
        connect(ray(), "127.0.0.1:1", 1)


def test_files_travel_along(tmp_path: Path, low_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from where it was; and what lies damaged on the other machine is replaced."""
    import tempfile

    (tmp_path / "other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
    grid = small_grid(tmp_path, low_images, "plq")
    serial, _ = run_here(grid, tmp_path / "serial", threads=1)
    luggage = Luggage.of(grid.subjects[0])
    for path in (tmp_path / "Set5").rglob("*.png"):
        path.unlink()
    subject = luggage.unpack()
    assert subject.calibration.digest() == grid.subjects[0].calibration.digest()
    places = [pair.high for each in subject.data for pair in each.folder]
    assert all(str(place).startswith(str(tmp_path / "other")) for place in places)
    places[0].write_bytes(b"damaged")
    task = Task(grid.cells[1], serial.records[0].data)
    outcome = compute_remotely(luggage, task, Wishes(device="cpu", threads=1))
    record = replace(outcome.record, commit=serial.records[1].commit)
    assert without_times([record]) == without_times([serial.records[1]])
    other = replace(task.cell, identity=task.cell.identity | {"torch": "1.0"})
    assert "a machine has torch 2." in compute_remotely(luggage, replace(task, cell=other), WISHES).record.reason


def test_without_ray(tmp_path: Path, low_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"srquant\[cluster\]"):
        RayCluster(small_grid(tmp_path, low_images).subjects, WISHES, "local")
