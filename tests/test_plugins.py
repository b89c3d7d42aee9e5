"""What a package of its own brings: one of each kind, by entry points; and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch

import srquant
from srquant.engines.targets import Target
from srquant.quantizers import QUANTIZERS, Quantizer, build_quantizer
from srquant.quantizers.ranges import UniformRange
from srquant.support.errors import ArgumentError, PluginWarning, UnknownNameError
from srquant.support.plugins import Registry

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python \S+?(?P<name>\w+)\.py\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
METHOD = '''
from dataclasses import dataclass

import torch

import srquant
from foreign.half_range import HalfRange
from srquant.methods.pipeline.build import build_layers
from srquant.methods.pipeline.finish import finish
from srquant.methods.pipeline.observe import observe_ranges
from srquant.methods.pipeline.plan import make_plan
from foreign.three_sigma_range import ThreeSigmaRange


@srquant.register
@dataclass(frozen=True, kw_only=True)
class Halved(srquant.Method):
    """Half-range quantizers for activations and weights."""

    name = "halved"
    deviations: float = 3.0
    """Of activations."""

    def quantize(self, model, calibration, state=None):
        plan = make_plan(model, self)
        bounds = observe_ranges(plan, calibration, self, lambda bits: ThreeSigmaRange(self.deviations))
        layers = build_layers(
            plan,
            bounds,
            self,
            lambda bits, found: HalfRange(bits, **found),
            lambda bits, weight: HalfRange(bits, *weight.aminmax()),
        )
        return finish(model, plan, layers, self, calibration)
'''
ENTRIES = """
[srquant.methods]
halved = foreign.halved:Halved
broken = foreign.broken:Broken

[srquant.quantizers]
half_range = foreign.half_range:HalfRange

[srquant.ranges]
three_sigma = foreign.three_sigma_range:ThreeSigmaRange
min_max = foreign.taken:Taken

[srquant.networks]
nearest_plus = foreign.nearest_plus:NearestPlus
careless = foreign.careless:Careless

[srquant.engines]
onnxreference = foreign.onnxreference:TARGET
nameless = foreign.taken:nothing
"""
FILES = {
    "halved": METHOD,
    "broken": "import a_package_that_is_not_there\n",
    "taken": """
from dataclasses import dataclass
from srquant.quantizers.ranges import UniformRange

@dataclass(frozen=True)
class Taken(UniformRange):
    name = "min_max"

nothing = 3
""",
    "careless": """
from srquant.networks import SRNetwork

class Careless(SRNetwork):
    name = "careless"

    @classmethod
    def read(cls, state, value_range):
        return state["its own key"]
""",
}
USE = """
import sys, warnings
from pathlib import Path
import torch
import srquant
from srquant.images.samples import CALIBRATION
from srquant.networks import all_networks

folder = Path(sys.argv[1])
torch.manual_seed(0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    kind = all_networks()["nearest_plus"]
    network = kind(kind.Config()).eval()
    for weight in network.parameters():
        weight.data *= 0.2
    torch.save(network.state_dict(), folder / "float.pth")
    model = srquant.load(folder / "float.pth")
    assert type(model.network) is kind
    patches = srquant.Calibration.from_low_resolution(CALIBRATION, count=2, size=24)
    assert srquant.configure("minmax", weights={"range": "three_sigma"}).weights.range == "three_sigma"
    halved = srquant.configure("halved", bits=4, deviations=2.5, edges="none")
    assert type(halved) is srquant.Halved
    quantized = srquant.quantize(model, patches, halved)
    assert {layer.left.name for layer in quantized.layers()} == {"half_range"}
    assert {layer.right.name for layer in quantized.layers()} == {"half_range"}
    quantized.save(folder / "small.safetensors")
    whole = srquant.configure("minmax", bits=8, edges="none", grid="int8", settings=["weights.range=three_sigma"])
    exported = srquant.quantize(model, patches, whole)
    print(srquant.export(exported, folder / "small.onnx", engine="onnxreference").engine)
    names = [method.name for method in srquant.methods()]
    assert names[-1] == "halved" and "broken" not in names, names
    found = [str(warning.message) for warning in caught]
for text in found:
    print(text)
torch.save(quantized(torch.full((1, 3, 9, 9), 0.5)), folder / "enlarged.pt")
"""
REOPEN = """
import sys
from pathlib import Path
import torch
import srquant

folder = Path(sys.argv[1])
if "import" in sys.argv:
    import foreign.half_range, foreign.nearest_plus
    srquant.register(foreign.half_range.HalfRange), srquant.register(foreign.nearest_plus.NearestPlus)
try:
    model = srquant.load(folder / "small.safetensors")
    print(torch.equal(model(torch.full((1, 3, 9, 9), 0.5)), torch.load(folder / "enlarged.pt")))
except srquant.SrquantError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a package is installed that brings one of each kind, and some that are broken."""
    folder = tmp_path_factory.mktemp("site-packages")
    blocks = {match["name"]: match["text"] for match in BLOCK.finditer((ROOT / "docs/architecture.md").read_text())}
    ranges = [
        m["text"]
        for m in BLOCK.finditer((ROOT / "docs/architecture.md").read_text())
        if "class ThreeSigmaRange" in m["text"]
    ]
    files = FILES | {name: blocks[name] for name in ("half_range", "nearest_plus", "onnxreference")}
    files["three_sigma_range"] = ranges[0]
    (folder / "foreign").mkdir()
    (folder / "foreign/__init__.py").touch()
    for name, text in files.items():
        (folder / f"foreign/{name}.py").write_text(text)
    (folder / "foreign-1.0.dist-info").mkdir()
    (folder / "foreign-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (folder / "foreign-1.0.dist-info/entry_points.txt").write_text(ENTRIES)
    return folder


def run(code: str, *words: object, path: Path | None = None) -> str:
    paths = os.pathsep.join(map(str, filter(None, [ROOT / "src", path])))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def used(foreign: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of what the package was used for, and what was printed."""
    folder = tmp_path_factory.mktemp("used")
    return folder, run(USE, folder, path=foreign)


def test_one_of_each_kind_comes_from_an_installed_package(used: tuple[Path, str]) -> None:
    assert "ONNX's reference" in used[1]


def test_what_is_broken_is_named_and_stops_nothing_else(used: tuple[Path, str]) -> None:
    text = used[1]
    assert "the method 'broken' of the package foreign is left out: ModuleNotFoundError: No module named" in text
    assert "the range 'min_max' of the package foreign is left out: ArgumentError: there is one of that name" in text
    assert "the engine 'nameless' of the package foreign is left out: ArgumentError: 3 is no engine" in text
    assert "the network 'careless' of foreign.careless cannot say whether weights are its own" in text


def test_own_commands_hear_nothing_of_broken_packages(foreign: Path) -> None:
    code = "import srquant; srquant.configure('plq', bits=3); import srquant.cli.main; print('quiet')"
    assert run("import warnings; warnings.simplefilter('error'); " + code, path=foreign) == "quiet\n"


def test_a_file_opens_where_its_package_is_installed_or_imported(foreign: Path, used: tuple[Path, str]) -> None:
    folder = used[0]
    assert run(REOPEN, folder, path=foreign) == "True\n"
    without = foreign.parent / "imported"
    without.mkdir(exist_ok=True)
    (without / "foreign").symlink_to(foreign / "foreign")
    assert run(REOPEN, folder, "import", path=without) == "True\n"
    refused = run(REOPEN, folder)
    assert refused.startswith("ModelFileError")
    assert "needs the network 'nearest_plus', which nothing here brings: install or import its package" in refused


@pytest.fixture
def quantizers(monkeypatch: pytest.MonkeyPatch) -> Registry[type[Quantizer]]:
    monkeypatch.setattr(QUANTIZERS, "registered", {})
    return QUANTIZERS


def steps(title: str | None, where: str = __name__) -> type[Quantizer]:
    """A quantizer class of a name, as if a module had it."""

    class Steps(Quantizer):
        def __init__(self, bits: int, upper: torch.Tensor) -> None:
            super().__init__()
            self.bits, self.intervals, self.upper = bits, ((1 << bits) - 1,), torch.nn.Parameter(upper)

        def knots(self) -> torch.Tensor:
            return torch.stack((-self.upper, self.upper), -1)

    Steps.__module__ = where
    if title is not None:
        Steps.name = title
    return Steps


def test_registering(quantizers: Registry[type[Quantizer]]) -> None:
    kind = srquant.register(steps("steps"))
    assert type(build_quantizer("steps", {"bits": 3}, {"upper": torch.tensor(1.0)})) is kind
    assert quantizers["steps"] is kind
    assert list(quantizers)[-1] == "steps"
    again = srquant.register(steps("steps"))
    assert quantizers["steps"] is again, "a cell of a notebook runs again"


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (
            lambda: steps("uniform"),
            "the quantizer 'uniform' is there already, srquant.quantizers.uniform.Uniform; give yours",
        ),
        (lambda: steps("steps", "elsewhere"), "the quantizer 'steps' is there already, tests.test_plugins.steps"),
        (lambda: steps(None), "Steps has no name of its own; give it one"),
        (lambda: steps(""), "Steps has no name of its own; give it one"),
        (lambda: dict, "cannot be registered; derive it from Method, Quantizer, UniformRange or SRNetwork"),
        (lambda: Quantizer, "cannot be registered"),
        (lambda: Target("", "x", "x", "x", "x"), "has no name of its own"),
        (lambda: Target("openvino", "x", "x", "x", "x"), "the engine 'openvino' is there already, Target"),
    ],
)
def test_what_cannot_be_registered(quantizers: Registry[type[Quantizer]], thing, message: str) -> None:
    quantizers.register(steps("steps"))
    before = dict(quantizers)
    with pytest.raises(ArgumentError, match=message):
        srquant.register(thing())
    assert dict(quantizers) == before


def folder_of(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> Registry[type[UniformRange]]:
    """A registry of a package with one module."""
    package = ModuleType("a_package")
    package.__path__ = [str(path)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_package", package)
    monkeypatch.delitem(sys.modules, "a_package.one", raising=False)
    (path / "one.py").write_text("from srquant.quantizers.ranges import UniformRange\n" + text)
    return Registry("range", "a_package", UniformRange, group="nobody's")


def test_names_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "class Base(UniformRange): pass\nclass A(Base):\n    name = 'a'\n"
    assert list(folder_of(monkeypatch, tmp_path, shared)) == ["a"]
    with pytest.raises(ArgumentError, match=r"a_package.one.A and a_package.one.B are both called 'a'"):
        dict(folder_of(monkeypatch, tmp_path, shared + "class B(Base):\n    name = 'a'\n"))
    with pytest.raises(ArgumentError, match=r"a_package.one.C has no name of its own"):
        dict(folder_of(monkeypatch, tmp_path, shared + "class C(A): pass\n"))


def test_an_unknown_name_suggests_the_nearest(quantizers: Registry[type[Quantizer]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PluginWarning)
        with pytest.raises(UnknownNameError, match="unknown quantizer 'unifrom'; did you mean 'uniform'"):
            build_quantizer("unifrom", {}, {})


@dataclass(frozen=True)
class Widest(UniformRange):
    """A range that is told nothing, registered from Python."""

    name = "widest"

    def __call__(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        reach = 2 * rows.abs().amax(1)
        return {"lower": -reach, "upper": reach}


def test_a_registered_range_serves_weights(monkeypatch: pytest.MonkeyPatch, edsr, calibration) -> None:
    from srquant.quantizers.ranges import RANGES

    monkeypatch.setattr(RANGES, "registered", {})
    srquant.register(Widest)
    method = srquant.configure("minmax", 4, edges="none", settings=["weights.range=widest"])
    wide, usual = (srquant.quantize(edsr, calibration, each) for each in (method, srquant.MinMax(edges="none")))
    for one, other in zip(wide.layers(), usual.layers(), strict=True):
        torch.testing.assert_close(one.right.bound, 2 * other.right.bound)
