"""docs/architecture.md says how to add one of each kind; here each is added from its text alone, and runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python (?P<path>\S+\.py)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

USE = """
import sys
from pathlib import Path

import torch

import srquant
from srquant.engines import open_exported
from srquant.images.samples import CALIBRATION
from srquant.methods import all_methods
from srquant.model import Model
from srquant.networks import all_networks
from srquant.networks.opening import save_network
from srquant.quantizers import all_quantizers, build_quantizer

folder = Path(sys.argv[1])
torch.manual_seed(0)
network = all_networks()["nearest_plus"]
float_network = network(network.Config(channels=6)).eval()
for weight in float_network.parameters():
    weight.data *= 0.2
torch.save(float_network.state_dict(), folder / "float.pth")
model = srquant.load(folder / "float.pth")
assert type(model.network) is network and model.network.config == float_network.config

patches = srquant.Calibration.from_low_resolution(CALIBRATION, count=2, size=24)
settings = ["deviations=2.5", "grid=int8", "edges=none", "weights.range=three_sigma"]
assert srquant.ThreeSigma is all_methods()["three_sigma"]
assert "three_sigma" in {method.name for method in srquant.methods()}
quantized = srquant.quantize(model, patches, srquant.configure("three_sigma", bits=8, settings=settings))
images = torch.rand(1, 3, 20, 17)
again = srquant.load(quantized.save(folder / "small.safetensors"))
assert torch.equal(again(images), quantized(images))
assert again.record.settings["deviations"] == 2.5

exported = srquant.export(quantized, folder / "small.onnx", engine="onnxreference")
assert exported.engine.startswith("ONNX's reference"), exported.engine
found = open_exported(folder / "small.onnx", "onnxreference")(images)
assert (found - quantized(images)).abs().max() < 0.02

x = torch.randn(1000)
half = build_quantizer("half_range", {"bits": 4}, {"lower": x.min(), "upper": x.max()})
assert type(half) is all_quantizers()["half_range"]
assert len(half(x).unique()) == 8 and torch.equal(half.decode(half.codes(x)), half(x))
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with everything that the document adds."""
    folder = tmp_path_factory.mktemp("house")
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    blocks = list(BLOCK.finditer((ROOT / "docs/architecture.md").read_text()))
    assert len(blocks) == 5
    for block in blocks:
        path = folder / "src/srquant" / block["path"]
        assert not path.exists()
        path.write_text(block["text"])
    return folder


def run(house: Path, *words: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(house / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=house, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_one_of_each_kind_is_found_and_works(house: Path, tmp_path: Path) -> None:
    run(house, "-W", "ignore", "-c", USE, str(tmp_path))


@pytest.mark.exhaustive
def test_what_was_added_keeps_the_floors_and_the_laws(house: Path) -> None:
    chosen = "floors or down or circle or plugins or (three_sigma and srresnet)"
    printed = run(
        house, "-m", "pytest", "tests/test_floors.py", "tests/laws/test_methods.py", "-p", "no:xdist", "-k", chosen
    )
    assert "passed" in printed
    listed = run(house, "-m", "pytest", "tests/laws/test_methods.py", "--collect-only", "-q", "-k", "three_sigma")
    count = re.search(r"test_methods\.py: (\d+)", listed)
    assert count is not None and int(count[1]) > 20, "the laws for methods test it without being told"
