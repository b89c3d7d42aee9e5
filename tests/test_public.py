"""The public names, what they say of themselves, and that importing them costs nothing."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

import srquant
from srquant.images import Pair, find_pairs, read_picture, write_picture
from srquant.learning.settings import LearningSettings
from srquant.methods import METHODS, Method
from srquant.model import Model
from srquant.support.errors import ArgumentError, ImageError, UnknownNameError
from tests.conftest import NETWORK_NAMES, small_networks
from tests.wild import every_layer

ROOT = Path(__file__).parent.parent


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = "import sys, srquant; print([n for n in sys.modules if n.startswith(('srquant.', 'torch', 'numpy'))])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_asking_for_a_name_that_is_not_there_imports_nothing() -> None:
    code = "import sys, srquant; print(hasattr(srquant, 'model_zoo'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False False"


@pytest.mark.parametrize("name", [name for name in dir(srquant) if not name.startswith("_")])
def test_every_name_is_there(name: str) -> None:
    assert getattr(srquant, name) is not None


def test_every_method_class_is_a_public_name() -> None:
    for kind in METHODS.values():
        assert getattr(srquant, kind.__name__) is kind
    assert {"Scores", "Exported", "MinMax", "PLQ", "OAPTQ", "methods", "__version__"} <= {*dir(srquant)}
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = srquant.Nothing


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"] and "version" not in project["project"]
    assert f'__version__ = "{srquant.__version__}"' in (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text()


def test_methods_describe_themselves() -> None:
    found = srquant.methods()
    assert [method.name for method in found] == list(METHODS)
    for method in found:
        assert issubclass(method.kind, Method)
        assert method.summary.endswith(".")
        assert method.source
        assert all(field.type and field.documentation for field in method.fields if "." not in field.name)
        for field in method.fields:
            made = srquant.configure(method.name, **{field.name: field.default})
            assert made == method.kind(), "each field is one that configure takes"
    plq = {field.name: field for field in next(method for method in found if method.name == "plq").fields}
    assert (plq["quantile"].type, plq["quantile"].default) == ("number, (0, 1)", 0.99)
    assert plq["bits"].type == "whole number, 2…8"
    assert plq["grid"].type == "free | int8"
    assert plq["weights.range"].type == (
        "bound_search | density_clipping | joint_shrink | least_squares | min_max | percentile"
    )
    assert "99th percentile" in plq["quantile"].documentation


def test_the_command_prints_the_same(run) -> None:
    code, text, _ = run("methods")
    assert code == 0
    for method in srquant.methods():
        assert f"\n{method.name} " in text
        assert method.summary[:40] in text
        assert method.source[:30] in text
    code, text, _ = run("methods", "plq")
    assert code == 0
    for field in next(method for method in srquant.methods() if method.name == "plq").fields:
        assert f"\n{field.name} " in text
        assert field.documentation[:30] in text
    code, _, error = run("methods", "plc")
    assert code == 2
    assert error.startswith("error: unknown method 'plc'; did you mean 'plq'?")


def test_types_of_public_functions_can_be_read() -> None:
    with pytest.raises(UnknownNameError):
        srquant.configure("plc")
    assert get_type_hints(srquant.configure)["return"] is Method


PUBLIC = ("", ".analysis", ".engines", ".images", ".methods", ".model", ".networks", ".quantizers")
"""Packages whose names are for users."""


def public_functions() -> dict[str, Callable[..., object]]:
    """Functions of the public packages, and methods of their classes."""
    found: dict[str, Callable[..., object]] = {}
    for package in PUBLIC:
        module = import_module(f"srquant{package}")
        for name in dir(module):
            thing = getattr(module, name)
            if name.startswith("_") or not str(getattr(thing, "__module__", "")).startswith("srquant"):
                continue
            if inspect.isclass(thing):
                inner = {f"{name}.{key}": getattr(thing, key) for key in vars(thing) if not key.startswith("_")}
                found |= {
                    key: value for key, value in inner.items() if inspect.isfunction(value) or inspect.ismethod(value)
                }
            elif inspect.isfunction(thing):
                found[name] = thing
    return found


def test_every_public_function_that_takes_a_path_takes_a_text() -> None:
    seen: list[str] = []
    for name, function in public_functions().items():
        for parameter in inspect.signature(function).parameters.values():
            kinds = re.split(r"[\s|,\[\]]+", str(parameter.annotation))
            if "Path" in kinds:
                assert "str" in kinds, f"{name}({parameter}): let it take a text too"
                seen.append(f"{name}.{parameter.name}")
    assert {"open_exported.path", "read_picture.path", "find_pairs.folder", "quantize.state", "load.path"} <= {*seen}
    assert len(seen) > 15


def test_texts_are_paths(edsr: Model, low_images: Path, tmp_path: Path) -> None:
    folder, out = str(low_images), str(tmp_path)
    picture = read_picture(f"{folder}/0.png")
    write_picture(f"{out}/HR/0.png", picture)
    write_picture(f"{out}/HR/1.png", read_picture(f"{folder}/1.png"))
    (pairs,) = find_pairs(out, 4)
    assert pairs == find_pairs(tmp_path, 4)[0]
    assert Pair("a.png", "b.png", 2) == Pair(Path("a.png"), Path("b.png"), 2)  # type: ignore[arg-type]
    patches = srquant.Calibration.from_low_resolution(folder, count=2, size=24)
    learning = srquant.OAPTQ(edges="none", finetuning=LearningSettings(epochs=1))
    learning.quantize(edsr, patches, f"{out}/run.state").save(f"{out}/m.safetensors")
    (tmp_path / "run.state").write_text("no state")
    with pytest.raises(srquant.SrquantError, match=r"run\.state"):
        learning.quantize(edsr, patches, f"{out}/run.state")
    quantized = srquant.quantize(edsr, patches, srquant.configure("minmax", 8, grid="int8"))
    srquant.export(quantized, f"{out}/m.onnx", tile=(40, 40))
    exported = srquant.open_exported(f"{out}/m.onnx")
    assert srquant.evaluate(exported, f"{out}/HR")[0].images
    assert srquant.upscale(srquant.load(f"{out}/m.safetensors"), f"{folder}/0.png", f"{out}/larger.png").written


ENTERED: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
}
"""What callers compute under."""


@pytest.mark.parametrize("method", ["minmax", "oaptq"])
@pytest.mark.parametrize("entered", ENTERED)
def test_a_model_is_the_same_whatever_the_caller_computes_under(
    entered: str, method: str, low_images: Path, tmp_path: Path
) -> None:
    """A network that makes its weights anew in each pass, opened, wrapped, quantized and run."""
    settings = [] if method == "minmax" else ["finetuning.epochs=1", "finetuning.batch=2"]
    images = torch.rand(1, 3, 10, 14)

    def made() -> tuple[torch.Tensor, torch.Tensor, bytes]:
        torch.manual_seed(0)
        model = Model.wrap(every_layer(weight_norm)(), 2)
        patches = srquant.Calibration.from_low_resolution(low_images, count=4, size=16)
        quantized = srquant.quantize(model, patches, srquant.configure(method, settings=settings))
        return model(images), quantized(images), quantized.save(tmp_path / "q.safetensors").read_bytes()

    expected = made()
    with ENTERED[entered]():
        found = made()
    assert found[0].dtype == found[1].dtype == torch.float32
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert found[2] == expected[2]


def test_a_folder_of_low_resolution_images_calibrates(edsr: Model, low_images: Path, tmp_path: Path) -> None:
    expected = srquant.quantize(edsr, srquant.Calibration.from_low_resolution(low_images), "minmax")
    for folder in (low_images, str(low_images)):
        found = srquant.quantize(edsr, folder, "minmax")
        assert found.record == expected.record
        assert (
            found.save(tmp_path / "a.safetensors").read_bytes()
            == expected.save(tmp_path / "b.safetensors").read_bytes()
        )
    with pytest.raises(ImageError, match="nowhere"):
        srquant.quantize(edsr, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("edsr.pth", "photos/"), r"^model='edsr\.pth' is no Model; pass srquant\.load\(path\) or"),
        (
            (None, [torch.zeros(3, 8, 8)]),
            r"^data=\[tensor.* is neither LR patches nor photographs, and srquant needs",
        ),
        ((None, None, srquant.PLQ), "^method=<class 'srqua.* is no Method; pass a name, or what srquant.configure"),
    ],
)
def test_what_cannot_be_quantized_says_what_to_pass(
    edsr: Model, calibration: srquant.Calibration, arguments: tuple[object, ...], message: str
) -> None:
    given = [
        given if given is not None else usual
        for given, usual in zip(arguments, (edsr, calibration, None), strict=False)
    ]
    with pytest.raises(ArgumentError, match=message):
        srquant.quantize(*given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_a_model_prints_as_a_few_lines(name: str, calibration: srquant.Calibration) -> None:
    model = Model(small_networks()[name], f"{name}.pth")
    quantized, alike = (
        srquant.quantize(model, calibration, srquant.configure("minmax", 3, scope="all", edges=edges))
        for edges in ("8bit", "none")
    )
    for each in (model, quantized, alike):
        text = repr(each)
        assert len(text.splitlines()) <= 4
        assert max(map(len, text.splitlines())) <= 120
        assert f"{model.network.name} ×{model.scale} from {name}.pth" in text
        assert f"{each.sizes().parameters:,} parameters" in text
    assert "float, " in repr(model)
    assert re.search(r"by minmax: .*W8A8 in \d+ layers?", repr(quantized))
    assert re.search(r"by minmax: W3A3 in \d+ layers?", repr(alike))
    assert f"{quantized.sizes().stored_bits // 8:,} bytes" in repr(quantized)


def test_results_print_as_a_line(
    edsr: Model, calibration: srquant.Calibration, low_images: Path, tmp_path: Path
) -> None:
    assert repr(calibration) == "Calibration(6 patches of 24x24 from 6 LR images, seed 0)"
    assert repr(read_picture(low_images / "0.png")) == "Picture(48 wide, 40 high, RGB, 8 bits)"
    (folder,) = find_pairs(low_images, 4)
    assert repr(folder) == f"PairFolder({low_images.name}: 6 pairs)"
    (scores,) = srquant.evaluate(edsr, low_images)
    assert re.fullmatch(rf"Scores\({low_images.name}: PSNR .* dB, SSIM .*, SSIM \(AdaBM\) .*; 6 images\)", repr(scores))
    quantized = srquant.quantize(edsr, calibration, srquant.configure("minmax", 8, grid="int8"))
    assert re.fullmatch(
        r"Record\(minmax on 6 patches.*; 100\.0% of the multiply-adds quantized\)", repr(quantized.record)
    )
    srquant.export(quantized, tmp_path / "m.onnx", tile=(40, 40))
    exported = srquant.open_exported(tmp_path / "m.onnx")
    assert repr(exported).startswith("Exported(m.onnx: edsr ×4 by minmax, for images of 40x40, in ")
    assert repr(srquant.upscale(edsr, low_images, tmp_path / "out")) == "Done(6 written, 0 skipped, 0 failed)"
