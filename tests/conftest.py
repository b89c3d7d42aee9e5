"""Fixtures: small networks and images the tests make themselves, and the shared ones where they are present."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from torch import nn

from srquant.cli import main as cli
from srquant.images import Calibration
from srquant.model import Model
from srquant.networks import SRNetwork
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.networks.msrresnet import MSRResNet, MSRResNetConfig
from srquant.networks.rdn import RDN, RDNConfig
from srquant.networks.srresnet import SRResNet, SRResNetConfig
from srquant.networks.swinir import SwinIR, SwinIRConfig

settings.register_profile("repeating", derandomize=True)
settings.load_profile("repeating")  # a run tries what the run before it tried
torch.set_num_threads(1 if os.environ.get("PYTEST_XDIST_WORKER") else torch.get_num_threads())

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


def script(name: str) -> ModuleType:
    """One of the scripts in ``tools``, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real networks and images."""
    if not (SHARED / "data").is_dir():
        pytest.skip("../shared is absent: real networks and benchmark images are not tested")
    return SHARED


def small_networks() -> dict[str, SRNetwork]:
    """One small network of each kind, with weights that are not all alike."""
    torch.manual_seed(0)
    networks: dict[str, SRNetwork] = {
        "edsr": EDSR(EDSRConfig(scale=4, channels=8, blocks=2)),
        "edsr_x3": EDSR(EDSRConfig(scale=3, channels=8, blocks=1, value_range=1.0)),
        "srresnet": SRResNet(SRResNetConfig(scale=2, channels=8, blocks=2)),
        "msrresnet": MSRResNet(MSRResNetConfig(scale=4, channels=8, blocks=2)),
        "rdn": RDN(RDNConfig(scale=2, channels=8, blocks=2, layers=2, growth=4)),
        "swinir": SwinIR(SwinIRConfig(scale=2, channels=12, depths=(2, 2), heads=(2, 2), window=4)),
        "swinir_classical": SwinIR(
            SwinIRConfig(scale=4, channels=12, depths=(2,), heads=(3,), window=8, upsampler="pixelshuffle")
        ),
    }
    for network in networks.values():
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 2)
                    module.weight.uniform_(0.5, 2)
                    module.bias.normal_(0, 0.1)
        network.eval().requires_grad_(False)
    return networks


NETWORK_NAMES = tuple(small_networks())


@pytest.fixture
def networks() -> dict[str, SRNetwork]:
    return small_networks()


@pytest.fixture
def edsr(networks: dict[str, SRNetwork]) -> Model:
    return Model(networks["edsr"], "edsr.pth")


def write_png(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """A smooth colour picture with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(3, 9) + y / rng.uniform(3, 9) + rng.uniform(0, 6)) for _ in range(3)]
    pixels = 128 + 80 * np.stack(waves, -1) + rng.normal(0, 8, (height, width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def low_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six LR images of several sizes."""
    folder = tmp_path_factory.mktemp("low")
    for number, (height, width) in enumerate([(40, 48), (36, 60), (64, 33), (40, 40), (50, 44), (32, 32)]):
        write_png(folder / f"{number}.png", height, width, number)
    return folder


@pytest.fixture
def calibration(low_images: Path) -> Calibration:
    return Calibration.from_low_resolution(low_images, count=6, size=24)


def run_in_two_processes(*words: object) -> str:
    """Run a command as ``torchrun`` does, with a thread each, at a port that is free; gives standard output."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "srquant.cli", *map(str, words)],
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command; gives exit code, standard output and standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["srquant", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            cli.main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call
