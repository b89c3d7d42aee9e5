"""AdaBM against a slow twin in the paper's notation, from calibration to the last epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.conftest import small_networks
from torch import Tensor

from srquant import configure
from srquant.images import Calibration
from srquant.learning import state as states
from srquant.learning.bit_mapping import BitMappingLoss
from srquant.learning.comparison import Comparison
from srquant.learning.losses import Outputs
from srquant.learning.settings import LearningSettings
from srquant.methods import AdaBM
from srquant.methods.base import ObservationSettings
from srquant.methods.pipeline.image_rows import require_rows_of_images
from srquant.methods.pipeline.plan import make_plan
from srquant.model import Model, load
from srquant.model.adapting import image_factor
from srquant.model.swapping import quant_layers
from srquant.networks.edsr import EDSR, EDSRConfig
from srquant.quantizers import mean_slope
from srquant.support.errors import ArgumentError

SHORT = LearningSettings(epochs=3, rate=1e-2)
NAMES = ("head.0", "body.0.body.0", "body.0.body.2", "body.1", "tail.0.0", "tail.1")
MIDDLE = NAMES[1:4]


@pytest.fixture
def tiny() -> Model:
    """A network small enough for a twin that is written out layer by layer."""
    torch.manual_seed(3)
    return Model(EDSR(EDSRConfig(scale=2, channels=6, blocks=1)).eval().requires_grad_(False), "tiny")


@pytest.fixture
def patches(low_images: Path) -> Calibration:
    return Calibration.from_low_resolution(low_images, count=5, size=16)


# The twin -------------------------------------------------------------------------------------------------------------


def ste(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def uniform(x: Tensor, l: Tensor, u: Tensor, b: Tensor | int) -> Tensor:
    """x_q; of bits with an axis for each image."""
    n = 2**b - 1
    x = torch.where(x > u, u, torch.where(x < l, l, x))
    return ste((x - l) / (u - l) * n) / n * (u - l) + l


def shrink(x: Tensor, l: Tensor, u: Tensor, b: int, count: int) -> tuple[Tensor, Tensor]:
    scores = [
        float((x - uniform(x, l * (1 - 0.01 * i), u * (1 - 0.01 * i), b)).double().square().mean())
        for i in range(count)
    ]
    best = 1 - 0.01 * int(np.argmin(scores))
    return l * best, u * best


@dataclass
class Twin:
    """EDSR ×2 with one block: ``θ`` by name, ``m`` the layers' measures, ``t`` the thresholds of images."""

    model: Model
    theta: dict[str, Tensor]
    m: dict[str, Tensor]
    t: dict[str, Tensor]
    clipping: bool = False

    def forward(self, x: Tensor, quantized: bool, released: bool = False) -> tuple[Tensor, Tensor, Tensor, Any]:
        network, seen = self.model.network, {}
        mean = network.get_buffer("mean").view(3, 1, 1)
        l, u = self.t["lower"], self.t["upper"]
        g = mean_slope(x / 255)
        soft = torch.tanh((g - (u + l) / 2) * 2 / (u - l))
        img = soft - soft.detach() + (g > u).float() - (g < l).float()
        bits = torch.zeros(len(x))

        def convolve(name: str, x: Tensor) -> Tensor:
            nonlocal bits
            module, seen[name] = network.get_submodule(name), x
            weight = module.weight
            if quantized:
                b: Any = 8
                if name in MIDDLE:
                    soft = torch.tanh(self.m[name])
                    hard = self.m[name].detach().clamp(-1, 1).round()
                    if self.clipping:
                        ends = tuple(self.theta[f"{name}.left.{end}"] for end in ("lower", "upper"))
                        best = shrink(x, *ends, int(4 + hard), 100)
                        for end, found in zip(("lower", "upper"), best, strict=True):
                            self.theta[f"{name}.left.{end}"] = (self.theta[f"{name}.left.{end}"] + found) / 2
                    b = (4 + img + soft - soft.detach() + hard).clamp(2, 8)
                    bits = bits + b / len(MIDDLE)
                    b = b.view(-1, 1, 1, 1)
                x = uniform(x, self.theta[f"{name}.left.lower"], self.theta[f"{name}.left.upper"], b)
                u_w = self.theta[f"{name}.right.bound"]
                weight = uniform(weight, -u_w, u_w, 4 if name in MIDDLE else 8)
            return F.conv2d(x, weight, module.bias, padding=1)

        x = convolve("head.0", x - mean)
        block = convolve("body.0.body.2", convolve("body.0.body.0", x).relu()) + x
        y = F.pixel_shuffle(convolve("tail.0.0", convolve("body.1", block) + x), 2)
        return convolve("tail.1", y) + mean, block, bits, seen


def calibrated(model: Model, patches: Calibration, batch: int, released: bool) -> Twin:
    """Epoch 0: extremes and thresholds averaged with β = 0.9, measures of layers, u_w the best of 50."""
    twin = Twin(model, {}, {}, {"lower": torch.tensor(0.0), "upper": torch.tensor(1.0)})
    spread: dict[str, list[Tensor]] = {name: [] for name in NAMES}

    def average(kept: dict[str, Tensor], key: str, new: Tensor, first: bool) -> None:
        kept[key] = new if first else 0.9 * kept[key] + 0.1 * new

    for number, images in enumerate(patches.batches(batch)):
        seen = twin.forward(images * 255, False)[3]
        slopes = mean_slope(images).numpy()
        for name, x in seen.items():
            average(twin.theta, f"{name}.left.lower", x.min(), number == 0)
            average(twin.theta, f"{name}.left.upper", x.max(), number == 0)
            spread[name] += [image.std() for image in x]
        for end, q in (("lower", 10), ("upper", 90)):
            average(twin.t, end, torch.tensor(np.percentile(slopes, q)).float(), number == 0)
    measures = [float(torch.stack(spread[name]).mean()) for name in MIDDLE]
    low, high = np.percentile(measures, 30), np.percentile(measures, 70)
    for name, value in zip(MIDDLE, measures, strict=True):
        twin.m[name] = torch.tensor(float(value > high) - float(value < low))
    for name in NAMES:
        weight = model.network.get_submodule(name).weight
        largest = weight.max() if released else weight.abs().max()
        width = 4 if released or name in MIDDLE else 8
        twin.theta[f"{name}.right.bound"] = shrink(weight, -largest, largest, width, 50)[1]
    return twin


def order(count: int, epoch: int) -> list[int]:
    return [int(i) for i in np.random.default_rng((0, epoch)).permutation(count)]


def learned(twin: Twin, patches: Calibration, epochs: int, released: bool, rate: float) -> list[float]:
    """w, a, bits in turn, each with an Adam and a schedule of its own."""
    twin.clipping = True
    with torch.no_grad():
        twin.forward(patches.batch(order(len(patches), 0)[:2]) * 255, True)
    twin.clipping = False
    for kept in (twin.theta, twin.m, twin.t):
        for name, value in kept.items():
            kept[name] = value.detach().clone().requires_grad_()
    weights = [value for name, value in twin.theta.items() if ".right." in name]
    activations = [value for name, value in twin.theta.items() if ".left." in name]
    measures, thresholds = list(twin.m.values()), list(twin.t.values())
    groups = [[(weights, rate)], [(activations, rate)], [(measures, rate), (thresholds, 10 * rate)]]
    adams = [torch.optim.Adam([{"params": ps, "lr": rate} for ps, rate in group]) for group in groups]
    losses: list[float] = []
    for epoch in range(epochs):
        adam = adams[epoch % 3]
        drawn = order(len(patches), epoch)
        for first in range(0, len(drawn), 2):
            images = patches.batch(drawn[first : first + 2]) * 255
            with torch.no_grad():
                sr_t, feat_t, _, _ = twin.forward(images, False)
            sr, feat, bits, _ = twin.forward(images, True)
            if released:
                rows = (feat / feat.norm() - feat_t / feat_t.norm()).flatten(1).norm(dim=1)
                skt = rows.sum() / len(images) / len(images)
            else:
                both = zip(feat, feat_t, strict=True)
                skt = torch.stack([(a / a.norm() - b / b.norm()).norm() for a, b in both]).mean()
            bit = (bits.mean() - 4).clamp(min=0)
            loss = (sr - sr_t).abs().mean() + 10 * skt + 50 * bit
            for one in adams:
                one.zero_grad()
            loss.backward()
            adam.step()
            losses.append(float(loss.detach()))
        for group in adam.param_groups:
            group["lr"] *= 0.9
    return losses


@pytest.mark.parametrize(
    ("epochs", "batch", "released", "rate"),
    [(1, 5, False, 1e-2), (3, 2, False, 1e-2), (6, 2, False, 1e-3), (2, 5, True, 1e-2)],
)
def test_it_is_the_papers_program(
    tiny: Model,
    patches: Calibration,
    epochs: int,
    batch: int,
    released: bool,
    rate: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Smaller steps where there are more: a code that last bits tip leads two runs ever further apart."""
    method = AdaBM(
        finetuning=replace(SHORT, epochs=epochs, rate=rate),
        layer_rate=rate,
        image_rate=10 * rate,
        observation=ObservationSettings(batch=batch),
        as_released=released,
    )
    twin = calibrated(tiny, patches, batch, released)
    start = {name: value.clone() for name, value in twin.theta.items()}
    losses = learned(twin, patches, epochs, released, rate)
    students: list[Any] = []
    finish = method.quantize.__globals__["finish"]
    monkeypatch.setitem(
        method.quantize.__globals__, "finish", lambda *given: students.append(given[2]) or finish(*given)
    )
    after = method.quantize(tiny, patches)
    for name, layer in quant_layers(after.network).items():
        for side, quantizer in layer.quantizers().items():
            for key, value in quantizer.named_parameters():
                full = f"{name}.{side}.{key}"
                # Where a gradient is next to nothing, last bits of sums decide where a step goes.
                moved = float((twin.theta[full].detach() - start[full]).abs())
                near = 0.1 * moved + (1.5 * rate if name not in MIDDLE else 0)
                assert float(value) == pytest.approx(float(twin.theta[full].detach()), rel=1e-4, abs=near), full
    for name, layer in students[0].items():
        if name in MIDDLE:
            assert float(layer.left.layer) == pytest.approx(float(twin.m[name].detach()), abs=2e-3), name
            assert quant_layers(after.network)[name].left.bits == 4 + round(float(twin.m[name].detach()))
    looking = image_factor(after.network)
    for end in ("lower", "upper"):
        assert float(looking.get_parameter(end)) == pytest.approx(float(twin.t[end].detach()), rel=1e-3), end
    assert after.record is not None
    assert [row["stage"] for row in after.record.curve] == ["weights", "activations", "bits"][:epochs] * (
        1 if epochs <= 3 else 2
    )
    mine = [sum(row["losses"].values()) for row in after.record.curve]
    assert mine == pytest.approx([sum(losses[3 * e : 3 * e + 3]) / 3 for e in range(epochs)], rel=5e-3)


def test_mean_bits_above_the_target_cost() -> None:
    images = torch.zeros(2, 3, 4, 4)
    loss = BitMappingLoss((), 4)
    for bits, expected in (([5.0, 4.0], 25.0), ([3.0, 5.0], 0.0), ([3.0, 4.0], 0.0)):
        found = loss(Outputs(images, {}, bits=torch.tensor(bits)), Outputs(images, {}))
        assert float(found["L_bit"]) == pytest.approx(expected)
        assert float(found["L_pix"]) == float(found["L_skt"]) == 0
    assert float(loss(Outputs(images, {}), Outputs(images + 1 / 255, {}))["L_pix"]) == pytest.approx(1)


# What adapts ----------------------------------------------------------------------------------------------------------


def test_windows_are_refused_by_name(low_images: Path, tmp_path: Path, run) -> None:
    model = Model(small_networks()["swinir"], "swinir.pth")
    patches = Calibration.from_low_resolution(low_images, count=3, size=16)
    with pytest.raises(ArgumentError, match=r"the bits of layers.0.*attn.q cannot follow the image.*fixed=layers"):
        AdaBM(finetuning=SHORT).quantize(model, patches)
    source = model.save(tmp_path / "swinir.safetensors")
    code, _, error = run(
        *("quantize", source, "--method", "adabm", "--calibration", low_images, "-o", tmp_path / "q.safetensors")
    )
    assert code == 2
    assert "cannot follow the image" in error
    assert not (tmp_path / "q.safetensors").exists()
    names = make_plan(model, AdaBM()).names
    require_rows_of_images(make_plan(model, AdaBM()), [name for name in names if not name.startswith("layers.")], "")


def test_rdns_local_fusions_and_layers_asked_for_do_not_adapt(low_images: Path) -> None:
    model = Model(small_networks()["rdn"], "rdn.pth")
    patches = Calibration.from_low_resolution(low_images, count=3, size=16)
    method = AdaBM(finetuning=SHORT, layers=("RDBs.1.convs.0.*=5",))
    layers = quant_layers(method.quantize(model, patches).network)
    still = {name for name, layer in layers.items() if not layer.left.follows_image}
    assert still == {
        *("SFENet1", "SFENet2", "UPNet.0", "UPNet.2"),
        *("RDBs.0.LFF", "RDBs.1.LFF", "RDBs.1.convs.0.conv.0"),
    }
    assert layers["RDBs.1.convs.0.conv.0"].left.bits == 5
    assert {"GFF.0", "GFF.1"} <= layers.keys() - still


def test_nothing_adapts_at_eight_bits(tiny: Model, patches: Calibration) -> None:
    model = AdaBM(bits=8, finetuning=SHORT).quantize(tiny, patches)
    assert not model.bits_follow_image
    assert model.record is not None
    assert [row["stage"] for row in model.record.curve] == ["weights", "activations", "weights"]


@pytest.mark.parametrize(
    "setting",
    ["layer_tail=0.5", "image_tail=-0.1", "old_range=2", "image_rate=0", "features=-1", "grid=int8"],
)
def test_bad_fields(setting: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        configure("adabm", settings=[setting])
    if setting == "grid=int8":
        assert "the bits of adabm follow the image" in str(caught.value)
        assert "a method whose bits are the layer's" in str(caught.value)


def test_an_export_is_refused_with_the_way_out(tiny: Model, patches: Calibration, tmp_path: Path, run) -> None:
    pytest.importorskip("onnx")
    path = AdaBM(finetuning=SHORT).quantize(tiny, patches).save(tmp_path / "q.safetensors")
    code, _, error = run("export", path, "-o", tmp_path / "q.onnx")
    assert code == 2
    assert "follow the image" in error
    assert "quantize again with grid=int8" in error
    assert not (tmp_path / "q.onnx").exists()


def test_methods_say_whose_their_bits_are(run) -> None:
    code, text, _ = run("methods")
    assert code == 0
    row = next(line for line in text.split("\n") if line.startswith("adabm"))
    assert "image" in row.split()[:5]


@pytest.mark.parametrize("killed_at", [2, 4, 7])
def test_a_killed_run_goes_on_to_the_same_bytes(
    tiny: Model, patches: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """In the epoch of weights, of activations, of bits."""
    method, state = AdaBM(finetuning=SHORT), tmp_path / "run.state"
    monkeypatch.setattr(states, "SAVE_EVERY", 0)
    straight = method.quantize(tiny, patches).save(tmp_path / "a.safetensors")
    gradients, steps = Comparison.gradients, 0

    def killed(self: Comparison, *arguments: Any) -> dict[str, float]:
        nonlocal steps
        if steps == killed_at:
            raise KeyboardInterrupt
        steps += 1
        return gradients(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Comparison, "gradients", killed)
        method.quantize(tiny, patches, state)
    assert state.exists()
    again = method.quantize(tiny, patches, state).save(tmp_path / "b.safetensors")
    assert again.read_bytes() == straight.read_bytes()
    assert torch.equal(
        load(again).feature_bits(patches.batch([0, 1])), load(straight).feature_bits(patches.batch([0, 1]))
    )
