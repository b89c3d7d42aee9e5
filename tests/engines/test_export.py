"""Exported files: that engines compute what the model does, in integers, and what is refused."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from itertools import groupby, product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.conftest import NETWORK_NAMES, small_networks
from tests.engines.graphs import exported, run
from tests.engines.here import right_range, skip_if_it_dies
from torch import Tensor, nn

from srquant.engines import TARGETS, open_exported
from srquant.engines.agreement import export_onnx
from srquant.engines.exported import Contract, read_contract
from srquant.engines.onnx import write_onnx
from srquant.engines.operands import ExportSettings, IntegerOperands
from srquant.engines.runtimes import openvino
from srquant.engines.written import as_written
from srquant.images import Calibration
from srquant.methods import MSE, PLQ, MinMax
from srquant.methods.base import Method, WeightSettings
from srquant.model import Model, load
from srquant.model.layer import CodedWeight, QuantLayer
from srquant.model.multiplications import linear
from srquant.model.swapping import quant_layers
from srquant.quantizers import Symmetric, Uniform
from srquant.quantizers.numerics.integers import IntegerGrid
from srquant.support.errors import (
    ArgumentError,
    ExportError,
    MissingExtraError,
    ModelFileError,
    UnknownNameError,
)

CHANNELS = WeightSettings(granularity="per_channel")
METHODS: dict[str, Method] = {
    "w8a8": MinMax(bits=8, grid="int8", weights=CHANNELS),
    "w4a8": MinMax(bits=8, weight_bits=4, grid="int8"),
    "w4a6, ends float": MSE(bits=6, weight_bits=4, grid="int8", edges="float"),
    "w4a4 plq": PLQ(bits=4, grid="int8", weights=CHANNELS, edges="none"),
    "w3a2 plq": PLQ(bits=2, weight_bits=3, grid="int8", weights=CHANNELS),
}
NARROW = MinMax(bits=8, weight_bits=4, grid="int8", edges="none")
"""No two products of it leave 16 bits, so files are the same on every processor."""
TILES = {"swinir": (80, 84), "swinir_classical": (80, 88)}


@cache
def quantized(network: str, method: str, folder: Path) -> Model:
    patches = Calibration.from_low_resolution(folder, count=3, size=24)
    return METHODS[method].quantize(Model(small_networks()[network], f"{network}.pth"), patches)


def closeness(one: Tensor, other: Tensor) -> float:
    """PSNR against the spread of the first."""
    return float(-10 * ((one - other).square().mean() / one.var()).log10())


def write_here(model: Model, path: Path, *engines: str, tile: tuple[int, int] | None = None) -> Model:
    """Write the file that these engines (all if none is given) run rightly here; gives what they must compute."""
    form = right_range(*engines)
    write_onnx(model, path, ExportSettings(tile, range=form))
    return as_written(model, form)


KINDS = tuple(tuple(names) for _, names in groupby(NETWORK_NAMES, {n: m.name for n, m in small_networks().items()}.get))
"""Networks of one class: they have the same operators, but for the upsampler."""
CASES = [
    (kind[j % len(kind)], method, tuple(TARGETS)[(i + j + j // len(TARGETS)) % len(TARGETS)])
    for i, kind in enumerate(KINDS)
    for j, method in enumerate(METHODS)
    # Attention of a random network at 2 bits: codes tip until nothing agrees.
    if not (kind[0] in TILES and method == "w3a2 plq")
]
"""Each class with each method, each network and each method in each engine."""


@pytest.mark.parametrize(("network", "method", "engine"), CASES)
def test_engines_compute_what_the_model_does(
    network: str, method: str, engine: str, low_images: Path, tmp_path: Path
) -> None:
    skip_if_it_dies(engine, network)
    tile = TILES.get(network)
    model = write_here(quantized(network, method, low_images), tmp_path / "m.onnx", engine, tile=tile)
    images = Calibration.from_low_resolution(low_images, count=2, size=24).batch([0])[..., :19]
    if tile:
        images = torch.nn.functional.interpolate(images, tile, mode="bilinear")
    expected = model(images)
    found = open_exported(tmp_path / "m.onnx", engine, 1)(images)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    # A code that tips at a rounding boundary spreads; these networks are random and hardly damp it. With few bits
    # ONNX Runtime tips more of them: it rounds biases to whole multiples of the products' scale.
    exact = method == "w8a8" or (engine == "openvino" and network not in TILES)
    assert closeness(expected, found) > (35 if exact else 10)


def test_every_two_of_class_method_and_engine_are_among_the_cases() -> None:
    kind = {name: names[0] for names in KINDS for name in names}
    assert kind.keys() == set(NETWORK_NAMES) == {network for network, _, _ in CASES}
    assert {(kind[network], engine) for network, _, engine in CASES} == set(product(set(kind.values()), TARGETS))
    assert {(method, engine) for _, method, engine in CASES} == set(product(METHODS, TARGETS))
    assert len({(kind[network], method) for network, method, _ in CASES}) == len(KINDS) * len(METHODS) - 1


@pytest.mark.parametrize("network", [name for name in NETWORK_NAMES if name not in TILES])
def test_convolutional_networks_take_any_size(network: str, low_images: Path, tmp_path: Path) -> None:
    model = write_here(quantized(network, "w8a8", low_images), tmp_path / "m.onnx", "openvino")
    upscaler = open_exported(tmp_path / "m.onnx", "openvino", 1)
    for shape in ((1, 3, 7, 31), (1, 3, 1, 1), (1, 3, 1, 2), (2, 3, 16, 9)):
        images = torch.rand(shape)
        assert closeness(model(images), upscaler(images)) > 30


@pytest.mark.parametrize("method", ["w8a8", "w4a4 plq", "w3a2 plq"])
def test_every_product_is_one_of_bytes(method: str, low_images: Path, tmp_path: Path) -> None:
    """Each quantized convolution has an unsigned input and a signed weight of eight bits, and OpenVINO fuses both."""
    import openvino

    model = quantized("edsr", method, low_images)
    write_onnx(model, tmp_path / "m.onnx", ExportSettings((64, 64)))
    graph = onnx.load(tmp_path / "m.onnx").graph
    makers = {node.output[0]: node for node in graph.node}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == len(quant_layers(model.network))
    for node in convolutions:
        data, weight = (makers[name] for name in node.input[:2])
        assert (data.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert types[data.input[2]] == onnx.TensorProto.UINT8
        quantized_by = makers[data.input[0]]
        while quantized_by.op_type in ("Clip", "DepthToSpace"):
            quantized_by = makers[quantized_by.input[0]]
        assert quantized_by.input[1:] == data.input[1:], "the same scale and zero point on both sides"
        assert types[weight.input[0]] == onnx.TensorProto.INT8
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ran = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = Counter((str(i["layerType"].value), str(i["runtimePrecision"].value)) for i in ran if "layerType" in i)
    integer = sum(count for (kind, precision), count in kinds.items() if kind == "Convolution" and precision != "f32")
    assert integer == len(convolutions), kinds
    assert kinds["DepthToSpace", "u8"] == 2, "bytes are moved, not floats"


@pytest.mark.parametrize("kind", [nn.ReLU, nn.LeakyReLU, nn.PReLU, partial(nn.PReLU, 4), nn.Sigmoid, nn.Identity])
def test_what_follows_a_shuffle_is_computed_before_it(
    kind: Callable[[], nn.Module], calibration: Calibration, tmp_path: Path
) -> None:
    class Upsampler(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, 16, 3, padding=1)
            self.act = kind()
            self.tail = nn.Conv2d(4, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.tail(self.act(nn.functional.pixel_shuffle(self.head(x), 2)))

    network = Upsampler()
    with torch.no_grad():
        for parameter in network.act.parameters():
            parameter.uniform_(0.1, 0.9)
    model = write_here(METHODS["w8a8"].quantize(Model.wrap(network, 2), calibration), tmp_path / "m.onnx")
    order = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert order.index("DepthToSpace") == len(order) - order[::-1].index("QuantizeLinear")
    images = torch.rand(1, 3, 9, 14)
    for engine in TARGETS:
        assert closeness(model(images), open_exported(tmp_path / "m.onnx", engine, 1)(images)) > 45, engine


def test_channels_in_groups_keep_their_order(calibration: Calibration, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.PixelShuffle(2))
    floats = Model.wrap(network, 2)
    images = torch.rand(1, 3, 9, 14)
    model = write_here(METHODS["w8a8"].quantize(floats, calibration), tmp_path / "bytes.onnx", "openvino")
    write_onnx(floats, tmp_path / "float.onnx", ExportSettings())
    for name, expected in (("bytes", model(images)), ("float", floats(images))):
        assert closeness(expected, open_exported(tmp_path / f"{name}.onnx", "openvino", 1)(images)) > 45, name


@pytest.mark.parametrize(
    ("knots", "steps"),
    [([-7, 8], (15,)), ([0, 4, 28], (4, 3)), ([-60, -5, 6], (11, 11)), ([-50, -8, 8, 98], (3, 16, 5)),
     ([-90, -10, -3, 5, 25, 85], (4, 7, 8, 5, 2)), ([-14, 14], (14,)), ([-9, -3, 9, 29], (3, 6, 5))],
)  # fmt: skip
def test_piecewise_grids_by_bending(knots: list[int], steps: tuple[int, ...]) -> None:
    """Every value goes to the nearest level."""
    grid = IntegerGrid(torch.tensor(0.37), torch.tensor(knots), steps)
    model = exported(lambda x: torch.ops.srquant.quantized(x, 0.37, knots, steps, False), torch.zeros(4001))
    levels = 0.37 * grid.integers(torch.arange(sum(steps) + 1)).numpy()
    x = np.linspace(0.37 * (knots[0] - 20), 0.37 * (knots[-1] + 20), 4001, dtype=np.float32)
    found = run(model, torch.from_numpy(x)).numpy()
    assert set(np.abs(found[:, None] - levels).argmin(1)) == set(range(len(levels)))
    distance = np.abs(x[:, None] - levels)
    np.testing.assert_allclose(np.abs(x - found), distance.min(1), atol=1e-4)
    np.testing.assert_allclose(found, levels[np.abs(found[:, None] - levels).argmin(1)], atol=1e-4)


def test_linear_maps_are_products_of_bytes_and_nothing_is_moved_between_them(low_images: Path, tmp_path: Path) -> None:
    """OpenVINO runs integer convolutions; only keys are turned, and tokens change their order between blocks."""
    import openvino

    model = quantized("swinir", "w8a8", low_images)
    write_onnx(model, tmp_path / "m.onnx", ExportSettings(TILES["swinir"]))
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU", options)
    ran = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = Counter((str(i["layerType"].value), str(i["runtimePrecision"].value)) for i in ran if "layerType" in i)
    weighted = [layer for layer in quant_layers(model.network).values() if isinstance(layer.right, CodedWeight)]
    integer = sum(count for (kind, precision), count in kinds.items() if kind == "Convolution" and precision != "f32")
    assert integer == len(weighted), kinds
    assert not any(kind in ("FullyConnected", "MatMul", "Softmax", "FakeQuantize") for kind, _ in kinds), kinds
    # Keys: one of each straight block, one for each of four groups of shifted windows.
    keys = 2 * (1 + 4)
    moved = Counter(kind for kind, _ in kinds.elements())
    assert moved["Transpose"] <= keys + 4, kinds
    assert moved["Gather"] == 3 * 2, kinds


@pytest.mark.parametrize("network", TILES)
def test_masks_and_positions_do_not_blow_up_the_file(network: str, low_images: Path, tmp_path: Path) -> None:
    sizes = []
    for height, width in (TILES[network], [2 * side for side in TILES[network]]):
        write_onnx(Model(small_networks()[network], "x"), tmp_path / "m.onnx", ExportSettings((height, width)))
        sizes.append((tmp_path / "m.onnx").stat().st_size)
    height, width = TILES[network]
    # Three orders of tokens, there and back, eight bytes each.
    assert sizes[1] - sizes[0] < 8 * 6 * 3 * height * width + 1000


def test_four_bit_weights_are_stored_in_half_a_byte(low_images: Path, tmp_path: Path) -> None:
    model = quantized("edsr", "w4a4 plq", low_images)
    images = torch.rand(1, 3, 20, 20)
    results = []
    for storage in ("int8", "int4"):
        path = tmp_path / f"{storage}.onnx"
        write_onnx(model, path, ExportSettings(storage=storage))  # type: ignore[arg-type]
        results.append(open_exported(path, "onnxruntime", 1)(images))
        stored = Counter(tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4)
        assert stored == {onnx.TensorProto.INT4 if storage == "int4" else onnx.TensorProto.INT8: 9}
    assert torch.equal(*results)
    count = sum(layer.weights for layer in model.layers())
    sizes = [(tmp_path / f"{storage}.onnx").stat().st_size for storage in ("int8", "int4")]
    assert sizes[0] - sizes[1] > 0.5 * count - 9 * 600, "less a few nodes for each layer"
    *_, content = read_contract(tmp_path / "int4.onnx")
    assert onnx.TensorProto.INT4 not in {
        tensor.data_type for tensor in onnx.load_from_string(content).graph.initializer
    }


def test_the_file_says_where_it_came_from(low_images: Path, tmp_path: Path) -> None:
    model = quantized("edsr", "w8a8", low_images)
    write_onnx(model, tmp_path / "m.onnx", ExportSettings((96, 80)))
    content = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(content, full_check=True)
    assert content.ir_version == 10
    said = json.loads({entry.key: entry.value for entry in content.metadata_props}["srquant.export"])
    assert said["source"] == "edsr.pth"
    assert said["method"] == "minmax"
    assert said["settings"]["grid"] == "int8"
    assert said["calibration"] == model.record.calibration  # type: ignore[union-attr]
    contract, _ = read_contract(tmp_path / "m.onnx")
    assert (contract.scale, contract.tile, contract.receptive_field) == (4, (96, 80), model.network.receptive_field)
    shape = [side.dim_value for side in content.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, 3, 384, 320]


@pytest.mark.parametrize("engine", TARGETS)
def test_exporting_runs_the_file_and_says_how_well_it_agrees(
    engine: str, edsr: Model, calibration: Calibration, tmp_path: Path
) -> None:
    model, path = NARROW.quantize(edsr, calibration), tmp_path / "m.onnx"
    found = export_onnx(model, path, ExportSettings(), engine, 1)
    assert found.psnr >= 45
    assert found.engine.startswith(TARGETS[engine].title)
    assert (found.range, found.good_for, list(found.tried)) == ("full", "any processor", ["full"])


def test_a_file_that_does_not_agree_is_not_written(
    edsr: Model, calibration: Calibration, tmp_path: Path, monkeypatch
) -> None:
    """As from an engine that loses an offset."""
    real = openvino.compiled

    def wrong(content: bytes, name: str, threads: int | None = None):
        run = real(content, name, threads)
        return lambda images: run(images) + 0.02

    monkeypatch.setattr(openvino, "compiled", wrong)
    model = NARROW.quantize(edsr, calibration)
    message = r"to \d+\.\d dB on test patches, less than 45; nothing was written: a fault of OpenVINO, as ONNX Runtime"
    for form in ("auto", "full", "reduced"):
        with pytest.raises(ExportError, match=message):
            export_onnx(model, tmp_path / "m.onnx", ExportSettings(range=form), "openvino")
    assert not list(tmp_path.iterdir())


def test_errors_name_the_file_that_was_asked_for(
    edsr: Model, calibration: Calibration, tmp_path: Path, monkeypatch
) -> None:
    """Not the temporary one that the engine was given."""
    model, path = NARROW.quantize(edsr, calibration), tmp_path / "m.onnx"
    places = {"onnxruntime": "onnxruntime.InferenceSession", "openvino": "openvino.Core.compile_model"}
    for engine, place in places.items():
        title = TARGETS[engine].title
        with monkeypatch.context() as patched:
            patched.setattr(place, lambda *_, **__: 1 / 0)
            with pytest.raises(ModelFileError) as refused:
                export_onnx(model, path, ExportSettings(range="full"), engine)
            assert str(refused.value) == f"{title} refuses {path}: division by zero"
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, engine, None)
            with pytest.raises(MissingExtraError, match=f"running m.onnx in {title} needs"):
                export_onnx(model, path, ExportSettings(range="full"), engine)


def test_files_that_keep_weights_elsewhere_are_refused(
    edsr: Model, calibration: Calibration, tmp_path: Path, monkeypatch
) -> None:
    """Engines would look for those in the working directory, or not at all."""
    write_onnx(NARROW.quantize(edsr, calibration), tmp_path / "m.onnx", ExportSettings())
    onnx.save(onnx.load(tmp_path / "m.onnx"), tmp_path / "e.onnx", save_as_external_data=True, size_threshold=0)
    message = r"e.onnx keeps weights in other files, which srquant never writes and does not open; export it again"
    for folder in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(folder)
        for engine in TARGETS:
            with pytest.raises(ModelFileError, match=message):
                open_exported(tmp_path / "e.onnx", engine)


class Branches(nn.Module):
    """Layers without bias, whose outputs others read and add."""

    def __init__(self, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.first, self.layers = layer(3, 8), nn.ModuleList(layer(8, 8) for _ in range(3))
        self.last = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        y = self.layers[1](self.layers[0](x).relu()) + x
        return nn.functional.pixel_shuffle(self.last(self.layers[2](y) + x), 2)


class Pixelwise(nn.Linear):
    """A linear map of the channels."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("engine", TARGETS)
@pytest.mark.parametrize("bias", [None, 0.0, 0.1])
@pytest.mark.parametrize(
    "layer",
    [
        partial(nn.Conv2d, kernel_size=3, padding=1),
        partial(nn.ConvTranspose2d, kernel_size=3, padding=1),
        Pixelwise,
    ],
    ids=["conv", "transposed", "linear"],
)
def test_sums_of_layers_without_bias(
    layer: Callable[..., nn.Module], bias: float | None, engine: str, calibration: Calibration, tmp_path: Path
) -> None:
    """OpenVINO lost the scale of such layers, and gave an image of its mean."""
    network = Branches(partial(layer, bias=bias is not None))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(parameter, bias or 0.0)
    model = MinMax(bits=8, weight_bits=6, grid="int8", edges="none").quantize(Model.wrap(network, 2), calibration)
    assert export_onnx(model, tmp_path / "m.onnx", ExportSettings(), engine, 1).psnr > 55


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (MinMax(bits=8), "the input of head.0 has a uniform quantizer whose levels are not integers times a scale"),
        (
            PLQ(bits=4, edges="none"),
            "the input of head.0 has a piecewise_linear quantizer whose levels are not integers",
        ),
        (
            MinMax(bits=8, grid="int8", weights=WeightSettings(symmetric=False, granularity="per_channel")),
            "beyond int8; quantize again with --set grid=int8 --set weights.symmetric=true",
        ),
    ],
)
def test_models_that_do_not_fit_integers_are_refused(
    method: Method, message: str, edsr: Model, calibration: Calibration, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="quantize again with --set grid=int8") as caught:
        write_onnx(method.quantize(edsr, calibration), tmp_path / "m.onnx", ExportSettings())
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_free_bounds_that_happen_to_fit_are_taken(edsr: Model, calibration: Calibration) -> None:
    """After a ReLU the lower bound is zero: such layers are on integers without being asked."""
    layers = quant_layers(MinMax(bits=8, weight_bits=7).quantize(edsr, calibration).network)
    operands = IntegerOperands("body.0.body.2", layers["body.0.body.2"], ExportSettings())
    assert operands.left is not None
    assert operands.right is not None
    assert (operands.left.low, operands.left.high) == (0, 255)
    assert operands.right.high == 127


def test_other_refusals(edsr: Model, low_images: Path, tmp_path: Path) -> None:
    model = quantized("edsr", "w8a8", low_images)
    with pytest.raises(ArgumentError, match=r"storage=int4 is for quantized models, and edsr.pth is a float network; "):
        write_onnx(edsr, tmp_path / "m.onnx", ExportSettings(storage="int4"))
    with pytest.raises(ArgumentError, match=r"precision=float16 is for float networks, and edsr.pth is quantized here"):
        write_onnx(model, tmp_path / "m.onnx", ExportSettings(precision="float16"))
    with pytest.raises(ArgumentError, match=r"m.pt: exported models are .onnx files"):
        export_onnx(model, tmp_path / "m.pt", ExportSettings())
    with pytest.raises(
        ArgumentError, match=r"tile=16x64 does not do: edsr needs 8 pixels of overlap on each side, so h"
    ):
        write_onnx(model, tmp_path / "m.onnx", ExportSettings((16, 64)))
    contract = write_onnx(quantized("swinir", "w8a8", low_images), tmp_path / "m.onnx", ExportSettings())
    assert contract.tile == (128, 128), "it computes with the height and width"
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(ArgumentError, match=r"at least 80 and multiples of 4"):
        write_onnx(quantized("swinir", "w8a8", low_images), tmp_path / "m.onnx", ExportSettings((81, 80)))
    with pytest.raises(UnknownNameError, match=r"unknown engine 'openvin'; did you mean 'openvino'"):
        open_exported(tmp_path / "m.onnx", "openvin")


def test_sums_that_could_leave_32_bits_are_refused() -> None:
    weight = torch.ones(1, 70000)
    layer = QuantLayer(
        linear,
        Uniform(8, torch.tensor(0.0), torch.tensor(1.0), "int8"),
        CodedWeight.of(weight, Symmetric(8, torch.tensor(1.0), "int8")),
        None,
    )
    with pytest.raises(ArgumentError, match="fc: its sums can reach 2266950000, more than 32 bits hold"):
        IntegerOperands("fc", layer, ExportSettings())


@pytest.mark.parametrize(
    "content", [b"", b"no onnx at all", b"\x08\x0a\x12", None], ids=["empty", "text", "cut", "half a file"]
)
@pytest.mark.parametrize("engine", TARGETS)
def test_damaged_files(engine: str, content: bytes | None, low_images: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if content is None:
        write_onnx(quantized("edsr", "w8a8", low_images), path, ExportSettings())
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"m\.onnx"):
        open_exported(path, engine)


def test_files_of_others_and_missing_ones(tmp_path: Path, low_images: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(ModelFileError, match="cannot be read: No such file"):
        open_exported(path)
    write_onnx(quantized("edsr", "w8a8", low_images), path, ExportSettings())
    content = onnx.load(path)
    (said,) = (entry for entry in content.metadata_props if entry.key == Contract.KEY)
    said.value = '{"scale": 4}'
    onnx.save(content, path)
    with pytest.raises(ModelFileError, match="what it says of itself cannot be read"):
        open_exported(path)
    del content.metadata_props[:]
    onnx.save(content, path)
    with pytest.raises(ModelFileError, match="was not exported by srquant"):
        open_exported(path)


@pytest.mark.parametrize("package", ["onnx", "openvino", "onnxruntime"])
def test_a_missing_package_is_named(package: str, low_images: Path, tmp_path: Path, monkeypatch) -> None:
    import sys

    path = tmp_path / "m.onnx"
    model = quantized("edsr", "w8a8", low_images)
    write_onnx(model, path, ExportSettings())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'srquant\[{package}\]'"):
        export_onnx(model, path, ExportSettings(), "openvino" if package == "onnx" else package)


def test_images_smaller_than_a_tile_are_filled_up(low_images: Path, tmp_path: Path) -> None:
    model = write_here(quantized("edsr", "w8a8", low_images), tmp_path / "m.onnx", "onnxruntime", tile=(48, 40))
    upscaler = open_exported(tmp_path / "m.onnx", "onnxruntime", 1)
    images = torch.rand(2, 3, 30, 40)
    found = upscaler(images)
    assert found.shape == (2, 3, 120, 160)
    inside = slice(0, 4 * (30 - 8))
    assert closeness(model(images)[..., inside, :], found[..., inside, :]) > 30
    with pytest.raises(ArgumentError, match=r"m.onnx takes images up to 48x40, this one is 49x40; cut it into tiles"):
        upscaler(torch.rand(1, 3, 49, 40))
    with pytest.raises(ArgumentError, match="n 3 h w"):
        upscaler(torch.rand(3, 9, 9))


def test_padding_that_mirrors(calibration: Calibration, tmp_path: Path) -> None:
    class Mirroring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect")
            self.shuffle = nn.PixelShuffle(2)

        def forward(self, images: Tensor) -> Tensor:
            return self.shuffle(self.conv(images))

    method = MinMax(bits=8, grid="int8", edges="none")
    model = write_here(method.quantize(Model.wrap(Mirroring(), 2), calibration), tmp_path / "m.onnx", "openvino")
    images = torch.rand(1, 3, 9, 12)
    assert closeness(model(images), open_exported(tmp_path / "m.onnx", "openvino", 1)(images)) > 80


def test_a_real_network(shared: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    patches = Calibration.from_photographs(shared / "data/natural", 4, count=8, size=48)
    # At 8 bits first and last layers saturate on some processors; then the file of full range is not the one to check.
    method = PLQ(bits=4, grid="int8", bounds="least_squares", weights=CHANNELS, edges="float")
    model = method.quantize(load(shared / "models/edsr_b16_x4.safetensors"), patches)
    assert export_onnx(model, tmp_path / "m.onnx", ExportSettings(), "openvino", 1).psnr >= 45


@pytest.mark.parametrize("engine", TARGETS)
@pytest.mark.parametrize("network", NETWORK_NAMES)
def test_float_networks_for_comparison(network: str, engine: str, tmp_path: Path) -> None:
    skip_if_it_dies(engine, network)
    model = Model(small_networks()[network], "x")
    contract = write_onnx(model, tmp_path / "m.onnx", ExportSettings(TILES.get(network)))
    assert contract.method == "float"
    images = torch.rand(1, 3, *(contract.tile or (20, 17)))
    assert closeness(model(images), open_exported(tmp_path / "m.onnx", engine, 1)(images)) > 80
