from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.conftest import small_networks
from torch import nn

from srquant.images import Calibration
from srquant.methods import PLQ, MinMax
from srquant.model import Model, load
from srquant.model.storage import HEADER
from srquant.support.errors import ArgumentError, ModelFileError, NetworkError, OutputError


@pytest.fixture
def saved(edsr: Model, calibration: Calibration, tmp_path: Path) -> Path:
    return PLQ().quantize(edsr, calibration).save(tmp_path / "m.safetensors")


def rewrite(path: Path, change) -> None:
    """Change the header of a model file."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[HEADER])
    tensors = load_file(path)
    change(header, tensors)
    save_file(tensors, path, {HEADER: json.dumps(header)})


def test_a_model_works_in_zero_to_one_whatever_the_network_does(edsr: Model) -> None:
    images = torch.rand(2, 3, 8, 9)
    assert edsr.network.value_range == 255
    torch.testing.assert_close(edsr(images), edsr.network(images * 255) / 255)
    assert edsr.scale == 4


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8), (0, 3, 8, 8)])
def test_images_of_another_shape_are_refused(edsr: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="images must be n 3 h w"):
        edsr(torch.zeros(shape))


def test_sizes_by_hand(edsr: Model, calibration: Calibration) -> None:
    """EDSR ×4, 8 channels, 2 blocks. W4: the five body convolutions at 4 bits, head, upsampler and tail at 8."""
    body, edges = 5 * 9 * 8 * 8, 9 * 3 * 8 + 2 * 9 * 8 * 32 + 9 * 8 * 3
    biases, edge_biases = 5 * 8, 8 + 2 * 32 + 3
    parameters = body + edges + biases + edge_biases
    sizes = PLQ().quantize(edsr, calibration).sizes()
    assert sizes.parameters == parameters
    assert sizes.quantized == body + edges
    narrow = 4 * body + 8 * edges
    bounds, mean = 9 * (3 + 1), 3
    assert sizes.stored_bits == narrow + 32 * (biases + edge_biases + bounds + mean)
    assert sizes.ratio == pytest.approx(32 * parameters / (narrow + 32 * (biases + edge_biases)))
    assert sizes.ratio_with_biases == pytest.approx(32 * parameters / (narrow + 4 * biases + 8 * edge_biases))


def test_compression_is_the_published_formula(networks, calibration: Calibration) -> None:
    """2DQuant: P / (P − Q + Q·b/32), all quantized layers at b bits."""
    model = MinMax(bits=2, edges="none").quantize(Model(networks["edsr"], "x"), calibration)
    sizes = model.sizes()
    p, q = sizes.parameters, sizes.quantized
    assert sizes.ratio == pytest.approx(p / (p - q + q * 2 / 32))
    assert sizes.ratio_with_biases == pytest.approx(p / (p - p + p * 2 / 32)), "all parameters are weights or biases"


def test_float_models_are_saved_and_opened(edsr: Model, tmp_path: Path) -> None:
    path = edsr.save(tmp_path / "f.safetensors")
    again = load(path)
    assert again.record is None
    images = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(again(images), edsr(images))


def test_opening_a_model_imports_no_method_and_no_engine(saved: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from srquant.model import load; import torch;"
        f"load({str(saved)!r})(torch.rand(1, 3, 8, 8));"
        "kept_out = 'srquant.methods', 'srquant.engines', 'onnx', 'openvino';"
        "assert not [m for m in sys.modules if m.startswith(kept_out)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_newer_format_is_refused(saved: Path) -> None:
    rewrite(saved, lambda header, _: header.update(format=4))
    with pytest.raises(ModelFileError, match="has format 4; this version of srquant reads up to 3: update srquant"):
        load(saved)


def put(path: str, value: object):
    """A change of a header: put a value at a dotted path."""

    def change(header: dict, _tensors: object) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            header = header[parent]
        header[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "1", "format='1' is not a whole number"),
        ("format", None, "format=None is not a whole number"),
        ("format", 0, "format=0 is not at least 1"),
        ("format", 1.5, "format=1.5 is not a whole number"),
        ("network", ["edsr"], "network=.* is not a text"),
        ("config", [], "config=.* has no fields"),
        ("config.blocks", 10**12, "config.blocks=1000000000000 is outside"),
        ("config.blocks", 10**400, "config.blocks=.* is "),
        ("config.blocks", 4000, "larger network than the weights do"),
        ("config.blocks", 3, "missing keys: body.2"),
        ("config.blocks", -1, "config.blocks=-1 is outside"),
        ("config.channels", 60_000, "channels=60,000 is more than the weights given"),
        ("config.scale", 5, "scale=5 has no sub-pixel upsampler"),
        ("config.residual_scale", "1", "config.residual_scale='1' is not a number"),
        ("config.value_range", float("nan"), "config.value_range=nan is not a finite number"),
        ("config.block", 2, "did you mean 'config.blocks'"),
        ("record", None, "record=None has no fields"),
        ("record.multiply_adds", None, "record.multiply_adds=None is not a number"),
        ("record.multiply_adds", 0, "record.multiply_adds=0 is not above 0"),
        ("record.share", "all", "record.share='all' is not a number"),
        ("record.share", 2, r"record.share=2 is outside"),
        ("record.kept", [{"name": "x"}], r"record.kept.0.reason is missing"),
        ("record.folds", [{"convolution": "head.0", "norm": "x", "channels": 10**12, "biased": True}], "channels of x"),
        ("record.curve", [{"number": 1}], "curve.stage is missing"),
        ("record.curve", [3], r"record.curve.0=3 has no fields"),
        ("record.settings", 3, "record.settings=3 has no fields"),
        ("record.versions", {"torch": 2}, "record.versions.torch=2 is not a text"),
        ("record.metod", "x", "did you mean 'record.method'"),
        ("extra", 1, "unknown field 'extra'"),
    ],
)
def test_headers_that_make_no_sense(saved: Path, path: str, value: object, message: str) -> None:
    rewrite(saved, put(path, value))
    with pytest.raises(ModelFileError, match=rf"m\.safetensors .*{message}") as caught:
        load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["format", "network", "config", "record"])
def test_headers_that_lack_something(saved: Path, name: str) -> None:
    rewrite(saved, lambda header, _: header.pop(name))
    with pytest.raises(ModelFileError, match=rf"m\.safetensors is damaged: in its header, {name} is missing"):
        load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "[" * 10_000, '{"format": 1' + "0" * 5000 + "}"])
def test_headers_that_are_no_headers(saved: Path, text: str) -> None:
    save_file(load_file(saved), saved, {HEADER: text})
    with pytest.raises(ModelFileError, match=r"m\.safetensors") as caught:
        load(saved)
    assert "\n" not in str(caught.value)


def change_index(change) -> object:
    """A change of the index."""

    def apply(_header: object, tensors: dict[str, torch.Tensor]) -> None:
        index = json.loads(zlib.decompress(tensors["index"].numpy().tobytes()))
        change(index)
        packed = zlib.compress(json.dumps(index).encode())
        tensors["index"] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.pop("points"), "index.points is missing"),
        (lambda i: i["tensors"][0].pop(), r"index.tensors.0.2 is missing"),
        (lambda i: i["tensors"][0].__setitem__(2, [10**13]), "is outside"),
        (lambda i: i["tensors"][0].__setitem__(2, [10**11]), "a tensor is shorter than the index says"),
        (lambda i: i["tensors"][0].__setitem__(2, [-1]), "=-1 is outside"),
        (lambda i: i["tensors"][0].__setitem__(2, [0, 10**11]), "does not fit"),
        (lambda i: i["tensors"][0].__setitem__(1, "complex64"), "is not one of float32, int64, bool"),
        (lambda i: i["points"][0].__setitem__("shape", [10**6] * 3), "shorter than the index says"),
        (lambda i: i["points"][0].__setitem__("shape", [-8, -3, 3, 3]), "=-8 is outside"),
        (lambda i: i["points"][0].__setitem__("name", "body"), "does not fit its network|is no multiplication"),
        (lambda i: i["points"][0].__setitem__("left", ["uniform"]), "is missing"),
        (
            lambda i: i["points"][0]["left"].__setitem__(0, "unform"),
            "needs the quantizer 'unform', which nothing here brings",
        ),
        (lambda i: i["points"][0]["left"].__setitem__(1, {"bits": 99}), "bits=99 is outside"),
        (lambda i: i["points"][0]["left"].__setitem__(1, {"bits": "4"}), "damaged"),
        (lambda i: i["points"][0]["left"].__setitem__(2, {"lower": [2], "upper": [], "breakpoint": []}), "damaged"),
        (lambda i: i["points"][0].pop("weight"), "no right operand"),
        (lambda i: i["points"][0].__setitem__("inputs_first", 1), "does not fit its network"),
        (lambda i: i["points"][1].__setitem__("inputs_first", 1), "has a weight in another order"),
        (lambda i: i["points"][1].__setitem__("inputs_first", 7), "damaged"),
        (lambda i: i["points"][1].__setitem__("inputs_first", -1), "inputs_first=-1 is outside"),
        (lambda i: i["points"][1].__setitem__("inputs_first", "1"), "inputs_first='1' is not a whole number"),
        (lambda i: i["points"][1].__setitem__("also", ["body.9"]), "does not fit its network"),
        (lambda i: i["points"][1].__setitem__("also", [i["points"][2]["name"]]), "has other names than the index says"),
        (lambda i: i["points"][1].__setitem__("also", [3]), "also.0=3 is not a text"),
        (lambda i: i["points"][1].__setitem__("also", "body.9"), "also='body.9' is not a list"),
    ],
)
def test_indices_that_make_no_sense(saved: Path, change, message: str) -> None:
    rewrite(saved, change_index(change))
    with pytest.raises(ModelFileError, match=rf"m\.safetensors .*({message})") as caught:
        load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(saved: Path, value: float) -> None:
    rewrite(saved, lambda _, tensors: tensors["float32"].__setitem__(-1, value))
    with pytest.raises(ModelFileError, match="weights or bounds are NaN or infinite"):
        load(saved)


def test_blobs_of_another_type(saved: Path) -> None:
    rewrite(saved, lambda _, tensors: tensors.update(float32=tensors["float32"].to(torch.complex64)))
    with pytest.raises(ModelFileError, match=r"a row of torch\.float32 was wanted"):
        load(saved)


@pytest.mark.parametrize("keep", [20, 300, 0.3, 0.9, 0.999])
def test_cut_model_files(saved: Path, keep: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises((ModelFileError, NetworkError), match=r"m\.safetensors"):
        load(saved)


@pytest.mark.parametrize("blob", ["index", "codes", "float32"])
def test_damaged_model_files(saved: Path, blob: str) -> None:
    rewrite(saved, lambda _, tensors: tensors.update({blob: tensors[blob][:-1].clone()}))
    with pytest.raises(ModelFileError, match=r"m\.safetensors is damaged"):
        load(saved)
    rewrite(saved, lambda _, tensors: tensors.pop(blob))
    with pytest.raises(ModelFileError, match=r"m\.safetensors is damaged"):
        load(saved)


def test_an_unknown_network_in_a_model_file(saved: Path) -> None:
    rewrite(saved, lambda header, _: header.update(network="edsrr"))
    with pytest.raises(ModelFileError, match="needs the network 'edsrr', which nothing here brings: install or import"):
        load(saved)


def test_models_are_safetensors(edsr: Model, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="give a name that ends so"):
        edsr.save(tmp_path / "m.pth")


def test_a_failed_save_loses_nothing(saved: Path, edsr: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("srquant.model.storage.save_safetensors", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        load(saved).save(saved)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


class Custom(nn.Module):
    """Somebody's network: a convolution in another order, an operator product, an odd name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.mix = nn.Linear(12, 12)
        self.last = nn.Conv2d(12, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.first(x)).relu()
        z = y.flatten(2).mT
        attention = (z @ z.mT / 100).softmax(-1) @ z
        y = y + self.mix(attention).mT.view_as(y)
        return self.shuffle(self.last(y))


def test_any_module(calibration: Calibration, tmp_path: Path) -> None:
    module = Custom().eval()
    module.norm.running_mean.normal_(0, 0.1)
    model = Model.wrap(module, scale=2)
    images = torch.rand(1, 3, 10, 12)
    torch.testing.assert_close(model(images), module(images).detach())
    quantized = MinMax(bits=8, norms="folded").quantize(model, calibration)
    assert quantized.record is not None
    assert [fold.norm for fold in quantized.record.folds] == ["network.norm"]
    layers = {"network.first", "network.mix", "network.last", "network.product_0", "network.product_1"}
    assert {layer.name for layer in quantized.layers()} == layers
    assert not quantized.record.kept
    assert quantized.record.coverage == pytest.approx(1)
    path = quantized.save(tmp_path / "c.safetensors")
    assert torch.equal(load(path, network=Custom())(images), quantized(images))
    with pytest.raises(ArgumentError, match=r"passed from Python; open it there with load\(path, network=module\)"):
        load(path)
    with pytest.raises(ModelFileError, match="does not fit its network"):
        load(path, network=nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)))


class Repeated(nn.Module):
    """One convolution under two names, and one weight in two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.again = nn.Conv2d(12, 12, 3, padding=1)
        self.other_name = self.again
        self.tied = nn.Conv2d(12, 12, 3, padding=1)
        self.tied.weight = self.again.weight
        self.last = nn.Conv2d(12, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.other_name(self.again(self.first(x)).relu()).relu()
        return nn.functional.pixel_shuffle(self.last(self.tied(x)), 2)


@pytest.mark.parametrize("rules", [(), ("*.again=float",), ("*.tied=float",)])
def test_modules_of_two_names_and_weights_in_two_modules(
    rules: tuple[str, ...], calibration: Calibration, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    model = Model.wrap(Repeated().eval(), 2)
    quantized = MinMax(bits=3, edges="none", layers=rules).quantize(model, calibration)
    names = ["network.first", "network.again", "network.tied", "network.last"]
    kept = {f"network{rule[1:].removesuffix('=float')}" for rule in rules}
    assert [layer.name for layer in quantized.layers()] == [name for name in names if name not in kept]
    network = quantized.network
    assert network.get_submodule("network.other_name") is network.get_submodule("network.again")
    path = quantized.save(tmp_path / "m.safetensors")
    again = load(path, network=Repeated())
    images = torch.rand(1, 3, 9, 11)
    assert torch.equal(again(images), quantized(images))
    assert again.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_module_of_fewer_names_than_the_file_says_is_refused(calibration: Calibration, tmp_path: Path) -> None:
    """Else one of two modules would stay float without a word."""
    path = tmp_path / "m.safetensors"
    MinMax(bits=3, edges="none").quantize(Model.wrap(Repeated().eval(), 2), calibration).save(path)
    separate = Repeated()
    separate.other_name = nn.Conv2d(12, 12, 3, padding=1)
    with pytest.raises(ModelFileError, match=r"network\.again has other names than the index says"):
        load(path, network=separate)


def test_modules_that_do_not_enlarge_are_refused() -> None:
    with pytest.raises(ArgumentError, match="scale=3: the network turns 1x3x8x8 into 1x3x16x16"):
        Model.wrap(Custom().eval(), scale=3)
    with pytest.raises(ArgumentError, match="the network turns 1x1x8x8 into 1x3x6x6"):
        Model.wrap(nn.Conv2d(1, 3, 3), scale=1)


def test_moving_a_model_makes_a_new_one(edsr: Model) -> None:
    moved = edsr.to("cpu")
    assert moved.network is not edsr.network
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(moved(images), edsr(images))


def test_every_small_network_survives_a_file(tmp_path: Path, calibration: Calibration) -> None:
    for name, network in small_networks().items():
        model = MinMax().quantize(Model(network, name), calibration)
        images = torch.rand(1, 3, 11, 13)
        assert torch.equal(load(model.save(tmp_path / f"{name}.safetensors"))(images), model(images)), name


def test_weights_lie_in_memory_in_one_way_wherever_they_came_from(calibration: Calibration, tmp_path: Path) -> None:
    """The order of sums, and so the last bits, depend on it; on which processors, is not for a user to know."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.point = nn.Conv2d(3, 8, 1)
            self.conv = nn.Conv2d(8, 12, 3, padding=1)
            self.mix = nn.Linear(12, 12)
            self.shuffle = nn.PixelShuffle(2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = self.conv(self.point(images)).movedim(1, -1)
            return self.shuffle(self.mix(features).movedim(-1, 1))

    module, same = Mixed(), Mixed()
    same.load_state_dict(module.state_dict())
    for weight in same.parameters():
        weight.data = weight.data.transpose(0, 1).contiguous().transpose(0, 1) if weight.ndim == 2 else weight.data
        weight.data = weight.data.movedim(0, -1).contiguous().movedim(-1, 0) if weight.ndim == 4 else weight.data
    method = MinMax(layers=("*.conv=float", "*.mix=float"), edges="none")
    models = [Model.wrap(kind, 2) for kind in (module, same)]
    models += [method.quantize(model, calibration) for model in models]
    models.append(load(models[-1].save(tmp_path / "m.safetensors"), network=module))
    float_ways, coded_ways = (
        [{key: value.stride() for key, value in m.network.state_dict().items()} for m in part]
        for part in (models[:2], models[2:])
    )
    assert float_ways[0] == float_ways[1]
    assert coded_ways[0] == coded_ways[1] == coded_ways[2]
    images = torch.rand(1, 3, 9, 11)
    assert torch.equal(models[0](images), models[1](images))
    assert torch.equal(models[2](images), models[3](images))
    assert torch.equal(models[2](images), models[4](images))
