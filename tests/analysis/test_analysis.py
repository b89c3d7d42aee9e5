"""The analyses against slow twins, and as commands."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import skimage.color
import torch
from tests.conftest import NETWORK_NAMES, small_networks
from tests.images.test_pairs import make_pair
from torch import Tensor, nn

from srquant.analysis import bound_percentiles, clip_outliers, distributions, most_different, sensitivity
from srquant.images import Calibration, PairFolder, find_pairs, read_picture
from srquant.images.evaluation import enlarge, evaluate, luma_psnr
from srquant.images.metrics import cielab, colour_shift, psnr
from srquant.methods import DOBI, MSE, PLQ, MinMax, Percentile, SRQuant
from srquant.methods.base import WeightSettings
from srquant.model import Model
from srquant.model.layer import QuantLayer
from srquant.model.observing import observe
from srquant.model.preparing import prepare
from srquant.model.swapping import quant_layers, swap
from srquant.support.errors import ArgumentError


@pytest.fixture
def pairs(tmp_path: Path) -> PairFolder:
    for name in ("1", "2"):
        make_pair(tmp_path / "Set/x4", name, 4)
    return find_pairs(tmp_path / "Set/x4", 4)[0]


# Colours --------------------------------------------------------------------------------------------------------------


def test_cielab_is_that_of_scikit_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_allclose(cielab(pixels), skimage.color.rgb2lab(pixels), atol=0.01)
    other = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = skimage.color.deltaE_cie76(skimage.color.rgb2lab(pixels), skimage.color.rgb2lab(other)).mean()
    assert colour_shift(pixels, other) == pytest.approx(expected, rel=1e-3)


def test_colours_by_hand() -> None:
    white, black = np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)
    np.testing.assert_allclose(cielab(white)[0, 0], (100, 0, 0), atol=0.01)
    assert colour_shift(white, black) == pytest.approx(100, abs=0.01)
    assert colour_shift(white, white) == 0


# Sensitivity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NETWORK_NAMES if name != "edsr_x3"])
def test_replaying_gives_what_whole_passes_give(name: str, tmp_path: Path, calibration: Calibration) -> None:
    model = Model(small_networks()[name], name)
    make_pair(tmp_path / "Set", "1", model.scale)
    (folder,) = find_pairs(tmp_path / "Set", model.scale)
    quantized = MinMax(bits=3, edges="none").quantize(model, calibration)
    result = sensitivity(model, quantized, list(folder), weights=True)
    network, *_ = prepare(model.network, "float")
    assert result.float_psnr == pytest.approx(evaluate(model, [folder], model.scale)[0].psnr, abs=1e-3)
    assert result.all_psnr == pytest.approx(evaluate(quantized, [folder], model.scale)[0].psnr, abs=1e-9)
    layers = quant_layers(quantized.network)
    assert result.layers.keys() == layers.keys()
    for layer, module in layers.items():
        single = Model(swap(network, {layer: module}), name)
        assert result.layers[layer] == pytest.approx(evaluate(single, [folder], model.scale)[0].psnr, abs=0.01), layer


def test_activations_alone_are_quantized(edsr: Model, calibration: Calibration, pairs: PairFolder) -> None:
    quantized = SRQuant(bits=8, drawings=0, saturated=0, spare=0, edges="none").quantize(edsr, calibration)
    result = sensitivity(edsr, quantized, list(pairs)[:1])
    low, high = next(iter(pairs)).read()
    for name, layer in quant_layers(quantized.network).items():
        module = edsr.network.get_submodule(name)

        def quantize(_module: nn.Module, x: tuple[Tensor], layer: QuantLayer = layer) -> Tensor:
            values = layer.left(x[0])
            return values * getattr(layer.left, "factor", 1)

        handle = module.register_forward_pre_hook(quantize)
        expected = luma_psnr(edsr, low, high, edsr.scale)
        handle.remove()
        assert result.layers[name] == pytest.approx(expected, abs=0.02), name
    assert result.all_psnr != sensitivity(edsr, quantized, list(pairs)[:1], weights=True).all_psnr


def test_work_is_saved(edsr: Model, calibration: Calibration, pairs: PairFolder, monkeypatch) -> None:
    quantized = MinMax(edges="none").quantize(edsr, calibration)
    calls = 0
    convolve = torch.nn.Conv2d.forward

    def counting(module: torch.nn.Conv2d, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return convolve(module, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", counting)
    sensitivity(edsr, quantized, list(pairs)[:1], weights=True)
    count = len(quant_layers(quantized.network))
    prepared_and_float = 4 * count
    assert calls == prepared_and_float + count * (count - 1) // 2


def test_the_order_of_cost_and_the_teacher(edsr: Model, calibration: Calibration, pairs: PairFolder) -> None:
    before = {key: value.clone() for key, value in edsr.network.state_dict().items()}
    quantized = PLQ(bits=2, edges="none").quantize(edsr, calibration)
    result = sensitivity(edsr, quantized, list(pairs))
    scores = [result.layers[name] for name in result.most_sensitive()]
    assert scores == sorted(scores)
    assert all(torch.equal(before[key], value) for key, value in edsr.network.state_dict().items())
    with pytest.raises(ArgumentError, match="needs a float model and a quantized one"):
        sensitivity(edsr, edsr, list(pairs))
    other = MinMax().quantize(Model(small_networks()["srresnet"], "other"), calibration)
    with pytest.raises(ArgumentError, match="was not made of this network"):
        sensitivity(edsr, other, list(pairs))


# Distributions --------------------------------------------------------------------------------------------------------


def test_distributions_by_hand(edsr: Model, calibration: Calibration) -> None:
    rows = distributions(edsr, calibration, layers=["body.0.*"], bins=20)
    assert [(row.layer, row.sample) for row in rows] == [
        (name, i) for name in ("body.0.body.0", "body.0.body.2") for i in range(6)
    ]
    seen: list[Tensor] = []
    handle = edsr.network.get_submodule("body.0.body.2").register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    edsr(calibration.batch([4]))
    handle.remove()
    x, row = seen[0].double().flatten(), rows[6 + 4]
    z = (x - x.mean()) / x.std(correction=0)
    assert (row.lower, row.upper) == (float(x.min()), float(x.max()))
    assert row.mean == pytest.approx(float(x.mean()), rel=1e-4)
    assert row.deviation == pytest.approx(float(x.std(correction=0)), rel=1e-4)
    assert row.skewness == pytest.approx(float((z**3).mean()), rel=1e-4)
    assert row.breakpoint == pytest.approx(float(x.abs().quantile(0.99)), rel=1e-4)
    assert sum(row.counts) == x.numel()
    assert len(row.counts) == 20
    with pytest.raises(ArgumentError, match="matches no layer"):
        distributions(edsr, calibration, layers=["bodi.*"])


def test_attention_operands_and_weights_are_in_the_gallery(low_images: Path) -> None:
    model = Model(small_networks()["swinir"], "swinir")
    patches = Calibration.from_low_resolution(low_images, count=2, size=24)
    block = "layers.0.residual_group.blocks.0"
    rows = distributions(model, patches, layers=[f"{block}.*"], weights=True)
    linears = ["attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2"]
    operands = {*linears, "attn.scores", "attn.scores.right", "attn.mix", "attn.mix.right"}
    expected = {f"{block}.{name}" for name in operands} | {f"{block}.{name}.weight" for name in linears}
    assert {row.layer for row in rows} == expected
    by_name = {row.layer.removeprefix(f"{block}."): row for row in rows}
    assert 0 <= by_name["attn.mix"].lower < by_name["attn.mix"].upper <= 1, "a softmax"
    assert -0.18 < by_name["mlp.fc2"].lower < 0, "a GELU"
    weight = model.network.get_submodule(f"{block}.mlp.fc1").weight
    assert (by_name["mlp.fc1.weight"].lower, by_name["mlp.fc1.weight"].upper) == (weight.min(), weight.max())


# Bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["swinir", "srresnet"])
def test_bounds_lie_at_percentiles(name: str, low_images: Path) -> None:
    """Against sorting every tensor; per-channel bounds row by row."""
    model = Model(small_networks()[name], name)
    patches = Calibration.from_low_resolution(low_images, count=5, size=24)
    channels = MSE(weights=WeightSettings(range="least_squares", granularity="per_channel"))
    methods = {"minmax": MinMax(), "percentile": Percentile(quantile=0.9), "dobi": DOBI(bits=2), "channels": channels}
    quantized = {title: method.quantize(model, patches) for title, method in methods.items()}
    rows = bound_percentiles(model, quantized, patches)
    network, *_ = prepare(model.network, "float")
    seen: dict[str, list[Tensor]] = {}

    def look(layer: str, operand: str, values: Tensor) -> None:
        seen.setdefault(f"{layer}.{operand}", []).append(values.flatten().clone())

    observe(network, list(quant_layers(quantized["minmax"].network)), [patches.batch(range(5))], look)
    found = {(row.model, row.tensor): row for row in rows}
    assert len(found) == len(rows)
    for title, other in quantized.items():
        for layer, quant_layer in quant_layers(other.network).items():
            for side, quantizer in quant_layer.quantizers().items():
                weight = getattr(network.get_submodule(layer), "weight", None) if side == "right" else None
                row = found[title, f"{layer}.{side if weight is None else 'weight'}"]
                values = torch.cat(seen[f"{layer}.{side}"]) if weight is None else weight
                ends = quantizer.knots()[..., 0].detach(), quantizer.knots()[..., -1].detach()
                if ends[0].ndim:
                    values, ends = values.flatten(1), tuple(end[:, None] for end in ends)
                assert row.below == pytest.approx(100 * float((values < ends[0]).float().mean()), abs=1e-3)
                assert row.above == pytest.approx(100 * float((values > ends[1]).float().mean()), abs=1e-3)
                assert (row.lower, row.upper) == pytest.approx([float(end.mean()) for end in ends], abs=1e-5)
                assert row.kind == ("activation" if weight is None else "weight")
    if name == "srresnet":
        folded = MinMax(norms="folded").quantize(model, patches)
        with pytest.raises(ArgumentError, match="look at them apart"):
            bound_percentiles(model, {"folded": folded, "float": quantized["minmax"]}, patches)
    body = [row for row in rows if row.model == "percentile" and row.kind == "activation"]
    assert 5 < np.mean([row.below + row.above for row in body]) < 25
    with pytest.raises(ArgumentError, match="other is no quantized model made of"):
        bound_percentiles(model, {"other": model}, patches)


def test_bounds_are_drawn(run, low_images: Path, tmp_path: Path) -> None:
    torch.save(small_networks()["swinir"].state_dict(), tmp_path / "swinir.pth")
    network, few = tmp_path / "swinir.pth", ["--calibration", low_images, "--patches", 3]
    for name, further in (("dobi", []), ("2dquant", ["--set", "finetuning.steps=2", "--set", "finetuning.batch=2"])):
        words = ["quantize", network, "--method", name, "--bits", 3, *few, *further]
        code, _, error = run(*words, "-o", tmp_path / f"{name}.safetensors")
        assert code == 0, error
    out = tmp_path / "bounds.png"
    models = [tmp_path / f"{name}.safetensors" for name in ("dobi", "2dquant")]
    code, text, error = run("analyze", "bounds", network, *models, *few, "-o", out)
    assert code == 0, error
    assert "dobi: 64 tensors, on average" in text
    assert min(read_picture(out).size) > 200
    with out.with_suffix(".csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * 64
    assert all(0 <= float(row["lower_percentile"]) <= float(row["upper_percentile"]) <= 100 for row in table)
    code, _, error = run("analyze", "bounds", network, network, *few, "-o", out)
    assert (code, "no quantized model" in error) == (2, True)
    code, text, error = run("analyze", "learning", models[1], "-o", tmp_path / "learning.png")
    assert (code, error) == (0, "") and "2dquant: L_output" in text
    assert min(read_picture(tmp_path / "learning.png").size) > 200
    with (tmp_path / "learning.csv").open() as file:
        curve = [(row["epoch"], row["part"]) for row in csv.DictReader(file)]
    assert curve == [("1", "L_output"), ("1", "L_feature"), ("2", "L_output"), ("2", "L_feature")]
    for others, message in ((models, "learns nothing"), ([network], "is a float network")):
        code, _, error = run("analyze", "learning", *others, "-o", out)
        assert (code, message in error) == (2, True)
    block = "layers.0.*.blocks.0.*"
    code, text, _ = run("analyze", "distributions", network, *few, "--layer", block, "--weights", "-o", out)
    assert (code, "16 layers" in text) == (0, True)


# Outliers and regions -------------------------------------------------------------------------------------------------


def test_clipping_a_layer_by_hand(pairs: PairFolder) -> None:
    torch.manual_seed(1)
    convolution = torch.nn.Conv2d(3, 3, 1)
    model = Model.wrap(torch.nn.Sequential(convolution, torch.nn.Upsample(scale_factor=4)), 4)
    low, high = next(iter(pairs)).read()
    nothing, some = clip_outliers(model, low, high, [0.3])
    image = torch.from_numpy(low).permute(2, 0, 1)[None].float() / 255
    limit = image.abs().flatten().quantile(0.7)
    expected = enlarge(model, low, 4)
    np.testing.assert_array_equal(nothing.pixels, expected)
    clipped = (model(image.clamp(-limit, limit))[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert np.abs(some.pixels.astype(int) - clipped).max() <= 1
    inside = (slice(4, -4), slice(4, -4))
    assert some.psnr == pytest.approx(psnr(some.pixels[inside], high[inside]))
    assert some.shift == pytest.approx(colour_shift(some.pixels[inside], expected[inside]))
    assert nothing.shift == 0 < some.shift


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_bad_shares(edsr: Model, pairs: PairFolder, share: float) -> None:
    with pytest.raises(ArgumentError, match="is outside"):
        clip_outliers(edsr, *next(iter(pairs)).read(), [share])


def test_the_most_different_window() -> None:
    a = np.zeros((40, 50, 3), np.uint8)
    b = a.copy()
    b[11:19, 30:38] = 200
    assert most_different([a, b], 8) == (11, 30)
    with pytest.raises(ArgumentError, match="must fit"):
        most_different([a, b], 41)


# Commands -------------------------------------------------------------------------------------------------------------


def test_commands_draw_and_write_numbers(run, pairs: PairFolder, low_images: Path, tmp_path: Path) -> None:
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "edsr.pth")
    network, data = tmp_path / "edsr.pth", tmp_path / "Set/x4"
    few = ["--calibration", low_images, "--patches", 3]
    for words, rows in (
        (["outliers", network, "--data", data, "--share", "0.02", "--crop", "2,3,20"], 2),
        (["distributions", network, *few], 9 * 3),
        (["sensitivity", network, "--data", data, *few, "--images", 2, "--sorted"], 9),
    ):
        out = tmp_path / f"{words[0]}.png"
        code, text, error = run("analyze", *words, "-o", out)
        assert code == 0, error
        assert f"wrote {out} and {words[0]}.csv" in text
        assert min(read_picture(out).size) > 20
        with out.with_suffix(".csv").open() as file:
            table = list(csv.DictReader(file))
        assert len(table) == rows
        if words[0] == "sensitivity":
            losses = [float(row["loss"]) for row in table]
            assert losses == sorted(losses, reverse=True)
    small = tmp_path / "small.safetensors"
    run("quantize", network, "--calibration", low_images, "--patches", 3, "-o", small)
    out = tmp_path / "compare.png"
    code, text, _ = run("analyze", "compare", network, small, "--data", data, "--size", 24, "-o", out, "--zoom", 1)
    assert code == 0
    assert "small: " in text
    assert read_picture(out).size[1] == 3 * 24 + 4 * 6


def test_bad_commands(run, pairs: PairFolder, low_images: Path, tmp_path: Path) -> None:
    torch.save(small_networks()["edsr"].state_dict(), tmp_path / "edsr.pth")
    torch.save(small_networks()["srresnet"].state_dict(), tmp_path / "x2.pth")
    network, data, out = tmp_path / "edsr.pth", tmp_path / "Set/x4", tmp_path / "a.png"
    for words, message in (
        (["outliers", network, "--data", data, "-o", tmp_path / "a.jpg"], "figures are written as .png"),
        (["outliers", network, "--data", data, "-o", out, "--image", "3"], "unknown image '3'"),
        (["outliers", network, "--data", data, "-o", out, "--crop", "1,2"], "give top,left,size"),
        (["outliers", network, "--data", data, "-o", out, "--crop", "1,2,4000"], "does not lie inside"),
        (["outliers", network, "--data", data, "-o", out, "--share", "2"], "is outside (0, 1)"),
        (["distributions", network, "-o", out], "give either --calibration"),
        (["distributions", network, "--calibration", low_images, "-o", out, "--layer", "x"], "matches no layer"),
        (["compare", network, tmp_path / "x2.pth", "--data", data, "-o", out], "enlarge by different scales: 2, 4"),
    ):
        code, _, error = run("analyze", *words)
        assert (code, error[:7]) == (2, "error: "), words
        assert message in error
        assert not out.exists()


@pytest.mark.parametrize("command", ["outliers", "distributions", "bounds", "sensitivity", "learning", "compare"])
def test_help_has_examples(run, command: str) -> None:
    code, text, _ = run("analyze", command, "--help")
    assert code == 0
    assert "Example" in text
