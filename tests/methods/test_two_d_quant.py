"""2DQuant: DOBI and DQC against slow twins in the paper's notation."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import run_in_two_processes, small_networks
from tests.pairwise import every_pair
from tests.quantizers.ranges.test_ranges import dobi_slowly
from torch import Tensor, nn

from srquant.api import configure
from srquant.bench.measuring import speed_up
from srquant.images import Calibration
from srquant.learning import state as states
from srquant.learning.comparison import Comparison, Watch
from srquant.learning.losses import Outputs
from srquant.learning.settings import LearningSettings
from srquant.learning.teacher import Teacher
from srquant.methods import DOBI, Method, TwoDQuant
from srquant.methods.pipeline.observe import observe_at_once
from srquant.methods.pipeline.plan import make_plan
from srquant.methods.two_d_quant import DistillationLoss
from srquant.model import Model, load
from srquant.model.observing import observe, to_network
from srquant.model.survey import survey
from srquant.model.swapping import quant_layers, swap
from srquant.networks.swinir import SwinIR, SwinIRConfig
from srquant.quantizers import Quantizer
from srquant.quantizers.ranges import Bounds, BoundSearch, MinMaxRange
from srquant.support.errors import ArgumentError, FinetuningError
from srquant.support.watching import hooks

FEW = LearningSettings(steps=6, batch=4, rate=1e-2, schedule="cosine", cache=8)
_IN_BLOCK = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2", "attn.scores", "attn.mix")


@pytest.fixture
def swinir() -> Model:
    return Model(small_networks()["swinir"], "swinir.pth")


@pytest.fixture
def patches(low_images: Path) -> Calibration:
    return Calibration.from_low_resolution(low_images, count=5, size=24)


def quantizers(model: Model) -> dict[str, Quantizer]:
    found = quant_layers(model.network).items()
    return {f"{name}.{side}": q for name, layer in found for side, q in layer.quantizers().items()}


def bounds_of(model: Model) -> dict[str, tuple[float, float]]:
    return {name: (float(q.lower.detach()), float(q.upper.detach())) for name, q in quantizers(model).items()}


# What is quantized ----------------------------------------------------------------------------------------------------


def test_swinir_light_has_sixteen_quantizers_in_each_of_its_blocks(low_images: Path) -> None:
    model = Model(SwinIR(SwinIRConfig()).eval().requires_grad_(False), "light")
    few = Calibration.from_low_resolution(low_images, count=1, size=16)
    small = DOBI(bits=2).quantize(model, few)
    assert len(quantizers(small)) == 384
    assert sum(q.numel() for quantizer in quantizers(small).values() for q in quantizer.parameters()) == 768
    blocks = [f"layers.{i}.residual_group.blocks.{j}" for i in range(4) for j in range(6)]
    assert {layer.name for layer in small.layers()} == {f"{block}.{name}" for block in blocks for name in _IN_BLOCK}
    assert {(layer.left.bits, layer.right.bits) for layer in small.layers()} == {(2, 2)}
    assert small.record is not None
    reasons = {kept.name: kept.reason for kept in small.record.kept}
    assert set(reasons.values()) == {"scope=transformer"}
    assert {"conv_first", "layers.0.conv", "conv_after_body", "upsample.0"} <= reasons.keys()


@pytest.mark.parametrize(
    ("network", "scope", "convolutions"),
    [("swinir", "auto", False), ("swinir", "transformer", False), ("swinir", "all", True), ("edsr", "auto", True)],
)
def test_scope(network: str, scope: str, convolutions: bool, patches: Calibration) -> None:
    model = Model(small_networks()[network], network)
    method = configure("dobi", 4, settings=[f"scope={scope}"])
    kinds = {multiplication.kind.name for multiplication in make_plan(model, method).survey.multiplications}
    found = {layer.name: layer.right.bits for layer in method.quantize(model, patches).layers()}
    multiplications = {multiplication.name: multiplication for multiplication in survey(model.network).multiplications}
    assert {multiplications[name].kind.name for name in found} == (kinds if convolutions else {"linear", "matmul"})
    if convolutions:
        assert found[model.network.edges.first[0]] == 8, "edges=8bit holds in this scope"
        assert len(found) == len(multiplications)


@pytest.mark.parametrize("name", ["minmax", "oaptq", "srquant"])
def test_other_methods_have_the_scope_too(name: str, swinir: Model, patches: Calibration) -> None:
    settings = ["finetuning.epochs=1"] if name in ("oaptq", "srquant") else []
    every = configure(name, 4, settings=settings).quantize(swinir, patches).layers()
    found = configure(name, 4, settings=[*settings, "scope=transformer"]).quantize(swinir, patches).layers()
    expected = {layer.name for layer in DOBI().quantize(swinir, patches).layers()}
    assert {layer.name for layer in found} == expected < {layer.name for layer in every}


def test_an_exception_counts_whatever_the_scope(swinir: Model, patches: Calibration) -> None:
    found = DOBI(bits=3, layers=("conv_first=8", "*.fc1=float")).quantize(swinir, patches).layers()
    bits = {layer.name: layer.right.bits for layer in found}
    assert bits["conv_first"] == 8
    assert not any(name.endswith("fc1") for name in bits)


def test_a_convolutional_network_has_no_transformer(edsr: Model, patches: Calibration) -> None:
    with pytest.raises(ArgumentError, match="edsr has no linear maps or attention products; use scope=all"):
        DOBI(scope="transformer").quantize(edsr, patches)


@pytest.mark.parametrize("fields", [["scope=convolutions"], ["patches=0"], ["patch=8"]])
def test_bad_fields_of_dobi(fields: list[str]) -> None:
    with pytest.raises(ArgumentError):
        configure("dobi", settings=fields)


def test_origins_are_operators_however_they_are_called() -> None:
    """Modules, functions and methods alike, through views, copies and shifts; memory used again is named again."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(6))
            self.gelu = nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.convs[1](torch.softmax(self.convs[0](x), 1).roll(1, 2).contiguous())
            x = self.convs[2](self.gelu(x).flip(2).flip(2))
            x = self.convs[3](self.gelu(x).transpose(2, 3).transpose(2, 3))
            x = self.convs[5](nn.functional.relu(self.convs[4](x + 1)))
            return nn.functional.interpolate(x, scale_factor=2)

    multiplications = survey(Model.wrap(Mixed(), 2).network).multiplications
    origins = [multiplication.origins[0] for multiplication in multiplications]
    assert origins == ["", "softmax", "flip", "gelu", "add", "relu"]


def test_speed_up_by_operations(low_images: Path) -> None:
    """SwinIR-light ×2 at 2 bits; the paper prints 5.08×, having counted two convolutions too small."""
    model = Model(SwinIR(SwinIRConfig(scale=2)).eval().requires_grad_(False), "light")
    few = Calibration.from_low_resolution(low_images, count=1, size=16)
    assert speed_up(model, DOBI(bits=2).quantize(model, few)) == pytest.approx(4.65, abs=0.005)
    assert speed_up(model, model) == 1


def test_compression_is_what_2dquant_prints(low_images: Path, tmp_path: Path, run) -> None:
    """SwinIR-light ×2 at 2 bits: 3.60× with biases counted at 2 bits, 3.47× without; and the file as it is."""
    model = Model(SwinIR(SwinIRConfig(scale=2)).eval().requires_grad_(False), "light")
    few = Calibration.from_low_resolution(low_images, count=1, size=16)
    small = DOBI(bits=2).quantize(model, few)
    sizes = small.sizes()
    assert (sizes.parameters, sizes.quantized) == (910_152, 24 * (4 * 60 * 60 + 2 * 60 * 120))
    assert (round(sizes.ratio, 2), round(sizes.ratio_with_biases, 2)) == (3.47, 3.60)
    path = small.save(tmp_path / "small.safetensors")
    code, text, _ = run("inspect", path)
    assert code == 0
    real = 4 * sizes.parameters / path.stat().st_size
    assert (
        f"compression: 3.47× by weights, 3.60× with biases counted at the weights' bits, {real:.2f}× as a file" in text
    )
    assert 3.3 < real < 3.47, "bounds, codes and header are in the file too"


# DOBI -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "released"),
    [
        pytest.param(bits, released, marks=() if released == (bits in (3, 8)) else pytest.mark.exhaustive)
        for bits in (2, 3, 4, 8)
        for released in (False, True)
    ],
)
def test_every_quantizer_has_the_candidate_of_the_papers_loop(
    swinir: Model, patches: Calibration, bits: int, released: bool
) -> None:
    seen: dict[str, Tensor] = {}
    names = [each.name for each in survey(swinir.network).multiplications if each.kind.name != "conv"]

    def look(name: str, operand: str, values: Tensor) -> None:
        seen[f"{name}.{operand}"] = values.clone()

    observe(swinir.network, names, [patches.batch(range(5))], look)
    for name in names:
        seen.setdefault(f"{name}.right", getattr(swinir.network.get_submodule(name), "weight", torch.empty(0)))
    found = bounds_of(DOBI(bits=bits, as_released=released).quantize(swinir, patches))
    assert found.keys() == seen.keys()
    one_sided = ("mix.left", "fc2.left")  # softmax, GELU
    for name, (lower, upper) in found.items():
        l, u = dobi_slowly(seen[name].flatten(), bits, name.endswith(one_sided) and not released)
        assert (lower, upper) == pytest.approx((l, u), rel=1e-4, abs=1e-5), name


def test_the_whole_set_is_one_batch_however_it_passes(swinir: Model, patches: Calibration) -> None:
    at_once = bounds_of(DOBI(bits=3).quantize(swinir, patches))
    for batch in (1, 2, 4):
        passed = configure("dobi", 3, settings=[f"observation.batch={batch}"]).quantize(swinir, patches)
        for name, pair in bounds_of(passed).items():
            assert pair == pytest.approx(at_once[name], rel=1e-5, abs=1e-6), name


def test_samples_are_few_and_hold_the_extremes(swinir: Model, low_images: Path) -> None:
    patches = Calibration.from_low_resolution(low_images, count=12, size=32)
    counts: list[int] = []

    def record(rows: Tensor) -> Bounds:
        counts.append(rows.shape[1])
        return MinMaxRange()(rows)

    plan = make_plan(swinir, DOBI())
    found, whole = (observe_at_once(plan, patches, 4, lambda *_: record, samples) for samples in (1000, 1 << 30))
    assert all(found[key][name] == value for key, bounds in whole.items() for name, value in bounds.items())
    few, all_values = counts[: len(counts) // 2], counts[len(counts) // 2 :]
    assert max(all_values) > 100_000
    assert max(few) < 11 * 1000
    assert all(few[i] >= min(1000, all_values[i]) for i in range(len(few)))


def test_a_sample_chooses_nearly_the_same_bounds(swinir: Model, low_images: Path, monkeypatch) -> None:
    patches = Calibration.from_low_resolution(low_images, count=12, size=32)
    plan = make_plan(swinir, DOBI())
    some, all_values = (
        observe_at_once(plan, patches, 4, lambda bits, _: BoundSearch(3), samples) for samples in (4000, 1 << 30)
    )
    for key, bounds in all_values.items():
        width = float(bounds["upper"] - bounds["lower"])
        assert float((some[key]["upper"] - bounds["upper"]).abs()) < 0.15 * width, key


def test_only_the_papers_patches_are_looked_at(swinir: Model, low_images: Path) -> None:
    many = Calibration.from_low_resolution(low_images, count=50, size=32)
    small = DOBI(patch=16).quantize(swinir, many)
    assert small.record is not None
    assert small.record.calibration.startswith("32 patches of 16x16 from")
    direct = Calibration.from_low_resolution(low_images, count=32, size=16)
    assert bounds_of(small) == bounds_of(DOBI().quantize(swinir, direct))


# Distinct values ------------------------------------------------------------------------------------------------------


@every_pair(
    method=[DOBI(), TwoDQuant(finetuning=FEW)],
    where=["swinir transformer", "swinir all", "edsr auto"],
    bits=[2, 3, 4, 6, 8],
)
def test_a_finished_quantizer_emits_at_most_two_to_the_bits_values(
    method: Method, where: str, bits: int, patches: Calibration
) -> None:
    network, scope = where.split()
    model = replace(method, bits=bits, scope=scope, edges="none").quantize(
        Model(small_networks()[network], network), patches
    )
    values: dict[str, Tensor] = {}
    names = [f"{name}.left" for name in quant_layers(model.network)]
    names += [f"{name}.right" for name in quant_layers(model.network)]

    def look(name: str):
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            values[name] = output.unique()

        return hook

    with hooks(model.network, after={name: look(name) for name in names}):
        model(patches.batch(range(5)))
    assert values.keys() == quantizers(model).keys()
    for name, quantizer in quantizers(model).items():
        assert quantizer.bits == bits
        assert 1 <= len(values[name]) <= 2**bits, name


# DQC ------------------------------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    F_k = {name: torch.randn(3, 4, 5, 6) for name in "ab"}
    F_q = {name: value + 0.1 * torch.randn(3, 4, 5, 6) for name, value in F_k.items()}
    O, O_q = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    norms = {name: [x / x.square().sum().sqrt() for x in value] for name, value in (*F_k.items(),)}
    norms_q = {name: [x / x.square().sum().sqrt() for x in value] for name, value in (*F_q.items(),)}
    C, H, W = 4, 5, 6
    distances = {
        n: torch.stack([(x - y).square().sum().sqrt() for x, y in zip(norms_q[n], norms[n], strict=True)]) for n in "ab"
    }
    L_output = (O_q - O).abs().mean()
    L_feature = sum(float(distances[n].mean()) / (C * H * W) for n in "ab")
    student, teacher = Outputs(O_q, F_q), Outputs(O, F_k)
    found = DistillationLoss(("a", "b"))(student, teacher)
    assert float(found["L_output"]) == pytest.approx(float(L_output), rel=1e-5)
    assert float(found["L_feature"]) == pytest.approx(5 * L_feature, rel=1e-4)
    root = DistillationLoss(("a", "b"), mean="root")(student, teacher)
    assert float(root["L_feature"]) == pytest.approx(5 * L_feature * (C * H * W) ** 0.5, rel=1e-4)
    released = DistillationLoss(("a", "b"), divided=3)(student, teacher)
    assert float(released["L_output"]) == pytest.approx(float(L_output) / (3 * 8 * 8), rel=1e-5)
    per_tap = sum(float(distances[n].square().mean()) / (C * H * W) / (3 * 3 * C * H * W) for n in "ab")
    assert float(released["L_feature"]) == pytest.approx(5 * per_tap, rel=1e-4)
    assert float(DistillationLoss(())(student, teacher)["L_feature"]) == 0


def twin(
    start: nn.Module, teacher: nn.Module, feature_layers: tuple[str, ...], patches: Calibration, T: int, B: int
) -> nn.Module:
    """DQC written out: T steps of B patches, Adam on all bounds, a cosine."""
    student = copy.deepcopy(start)
    bounds = [p for m in student.modules() if isinstance(m, Quantizer) for p in m.parameters()]
    student.requires_grad_(False)
    for bound in bounds:
        bound.requires_grad_()
    adam = torch.optim.Adam(bounds, 0.01, (0.9, 0.999))
    orders = [np.random.default_rng((0, e)).permutation(len(patches)) for e in range(1 + T * B // len(patches))]
    stream = np.concatenate(orders)
    for t in range(T):
        images = patches.batch([int(i) for i in stream[t * B : (t + 1) * B]])
        features: list[dict[str, Tensor]] = [{}, {}]

        def keep(place: int, name: str, features: list[dict[str, Tensor]] = features):
            def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
                features[place][name] = output

            return hook

        outputs: list[Tensor] = []
        for place, network in enumerate((student, teacher)):
            with hooks(network, after={name: keep(place, name) for name in feature_layers}):
                outputs.append(network(to_network(network, images)) / network.value_range)
        loss = (outputs[0] - outputs[1].detach()).abs().mean()
        for name in feature_layers:
            for n in range(B):
                f_q, f = features[0][name][n], features[1][name][n].detach()
                loss = loss + 5 * (f_q / f_q.norm() - f / f.norm()).norm() / f.numel() / B
        adam.param_groups[0]["lr"] = 0.01 * 0.5 * (1 + math.cos(math.pi * t / T))
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for m in student.modules():
                if isinstance(m, Quantizer):
                    m.constrain()
    return student


def test_calibration_is_the_loop_written_out(swinir: Model, patches: Calibration) -> None:
    method = TwoDQuant(bits=3, finetuning=replace(FEW, steps=7, batch=3))
    plan = make_plan(swinir, method)
    start = swap(plan.network, method.search(plan, patches))
    expected = twin(start, plan.network, plan.network.feature_layers, patches, 7, 3)
    found = method.quantize(swinir, patches)
    before, after = (bounds_of(Model(network, "x")) for network in (start, expected))
    largest = max(abs(a - b) for n in after for a, b in zip(after[n], before[n], strict=True))
    assert 0.02 < largest < 0.07, "seven steps of at most 0.01"
    for name, pair in bounds_of(found).items():
        assert pair == pytest.approx(after[name], abs=2e-4), name


def test_it_comes_closer_to_the_float_network(swinir: Model, patches: Calibration) -> None:
    images = patches.batch(range(5))
    expected = swinir(images)
    learned = TwoDQuant(bits=2, finetuning=replace(FEW, steps=40, batch=5)).quantize(swinir, patches)
    searched = DOBI(bits=2).quantize(swinir, patches)
    errors = [float((model(images) - expected).abs().mean()) for model in (learned, searched)]
    assert errors[0] < 0.8 * errors[1]
    assert learned.record is not None
    curve = [sum(row["losses"].values()) for row in learned.record.curve]
    assert curve[-1] < curve[0]


def test_as_released(swinir: Model, patches: Calibration) -> None:
    released = configure("2dquant", 4, settings=["as_released=true"])
    assert isinstance(released, TwoDQuant)
    settings = released.finetuning
    assert (settings.steps, settings.batch, settings.schedule, settings.beta2) == (4000, 16, "constant", 0.99)
    short = configure("2dquant", 4, settings=["as_released=true", "finetuning.steps=2", "finetuning.batch=2"])
    model = short.quantize(swinir, patches)
    assert model.record is not None
    assert model.record.settings["finetuning"]["schedule"] == "constant"
    losses = model.record.curve[0]["losses"]
    assert 0 < losses["L_feature"] < 1e-3 * losses["L_output"]
    with pytest.raises(ArgumentError, match="features=-1 is outside"):
        configure("2dquant", settings=["features=-1"])


# Steps, the cache, resuming -------------------------------------------------------------------------------------------


def test_the_papers_numbers_are_the_defaults() -> None:
    method = TwoDQuant()
    steps = LearningSettings(steps=3000, batch=32, rate=0.01, schedule="cosine", beta1=0.9, beta2=0.999)
    paper = replace(steps, micro_batch=8, cache=512)
    assert (method.patches, method.patch, method.features, method.finetuning) == (32, 64, 5.0, paper)


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (7, 7), (31, 16), (60, 30)])
def test_a_run_of_steps_has_a_short_curve(swinir: Model, patches: Calibration, steps: int, rows: int) -> None:
    settings = replace(FEW, steps=steps, batch=1)
    record = TwoDQuant(bits=4, layers=("*=float", "layers.0.*.blocks.0.mlp.fc1=4"), finetuning=settings)
    model = record.quantize(swinir, patches)
    assert model.record is not None
    assert [row["number"] for row in model.record.curve] == list(range(1, rows + 1))
    assert all(math.isfinite(value) for row in model.record.curve for value in row["losses"].values())


def test_batches_run_on_over_the_end_of_a_pass(swinir: Model, patches: Calibration, monkeypatch) -> None:
    drawn: list[list[int]] = []
    gradients = Comparison.gradients

    def watch(comparison: Comparison, learned: Sequence[nn.Parameter], indices: list[int]) -> dict[str, float]:
        drawn.append(indices)
        return gradients(comparison, learned, indices)

    monkeypatch.setattr(Comparison, "gradients", watch)
    TwoDQuant(bits=4, finetuning=replace(FEW, steps=5, batch=7)).quantize(swinir, patches)
    assert [len(batch) for batch in drawn] == [7] * 5
    stream = [index for batch in drawn for index in batch]
    for start in range(0, 35, 5):
        assert sorted(stream[start : start + 5]) == list(range(5)), "every pass draws every patch once"
    assert stream[:5] != stream[5:10]


def test_the_size_of_the_cache_changes_no_byte(
    swinir: Model, patches: Calibration, tmp_path: Path, monkeypatch
) -> None:
    calls = 0
    run = Watch.outputs

    def counting(self: Watch, network: nn.Module, images: Tensor) -> Outputs:
        nonlocal calls
        calls += not quant_layers(network)
        return run(self, network, images)

    monkeypatch.setattr(Watch, "outputs", counting)
    files: dict[str, bytes] = {}
    passes: dict[str, int] = {}
    one = (3 * 48 * 48 + 2 * 12 * 24 * 24) * 4  # bytes of a patch's image and two feature layers
    for name, cache, room in (("none", 0, None), ("some", 0, 2 * one), ("all", 8, None)):
        settings = replace(FEW, cache=cache)
        calls = 0
        with monkeypatch.context() as patched:
            if room is not None:
                make = Teacher.__init__

                def small(self, run, cache, room: int = room, make=make) -> None:
                    make(self, run, cache)
                    self._room = room

                patched.setattr(Teacher, "__init__", small)
            model = TwoDQuant(bits=4, finetuning=settings).quantize(swinir, patches)
        passes[name] = calls
        assert model.record is not None
        model.record.settings["finetuning"]["cache"] = None
        files[name] = model.save(tmp_path / f"{name}.safetensors").read_bytes()
    assert files["none"] == files["some"] == files["all"]
    assert passes["all"] == 5, "once for each patch"
    assert passes["none"] == 6 * 4
    assert 5 < passes["some"] < 6 * 4


@pytest.mark.parametrize("learned", [TwoDQuant(bits=3, finetuning=FEW), TwoDQuant(as_released=True, finetuning=FEW)])
def test_a_batch_in_chunks_gives_what_it_gives_at_once(
    swinir: Model, patches: Calibration, learned: TwoDQuant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of the first step up to rounding. Later Adam makes a step of a bound whose gradient is all but zero,
    in whichever direction it was rounded.
    """
    sizes: list[int] = []
    run, gradients = Watch.outputs, Comparison.gradients
    first: dict[Comparison, Tensor] = {}

    def one_by_one(self: Watch, network: nn.Module, images: Tensor) -> Outputs:
        """Sums over a larger batch round otherwise, and a code that tips for it would hide what chunks do."""
        sizes.append(len(images))
        found = [run(self, network, image) for image in images.split(1)]
        features = {name: torch.cat([row.features[name] for row in found]) for name in found[0].features}
        return Outputs(torch.cat([row.images for row in found]), features)

    def kept(self: Comparison, learned: Sequence[nn.Parameter], indices: list[int]) -> dict[str, float]:
        parts = gradients(self, learned, indices)
        if self not in first:
            first[self] = torch.cat([p.grad.flatten() for p in learned if p.grad is not None])
        return parts

    monkeypatch.setattr(Watch, "outputs", one_by_one)
    monkeypatch.setattr(Comparison, "gradients", kept)
    whole = learned.quantize(swinir, patches)
    sizes.clear()
    cut = replace(learned, finetuning=replace(FEW, batch=4, micro_batch=3, cache=None)).quantize(swinir, patches)
    assert sizes == [3, 3, 1, 1] * 6, "teacher and student, three patches and the fourth"
    at_once, in_chunks = first.values()
    assert float(at_once.abs().max()) > 0
    assert float((at_once - in_chunks).norm()) < 1e-5 * float(at_once.norm())
    found, expected = bounds_of(cut), bounds_of(whole)
    differences = [abs(a - b) for name in found for a, b in zip(found[name], expected[name], strict=True)]
    assert max(differences) < 0.1 * FEW.rate, "a tenth of one step, after six"
    assert whole.record is not None
    assert cut.record is not None
    for ours, theirs in zip(cut.record.curve, whole.record.curve, strict=True):
        tolerance = 1e-2 * sum(theirs["losses"].values())
        assert ours["losses"] == pytest.approx(theirs["losses"], abs=tolerance)


def test_a_killed_run_of_steps_goes_on_to_the_same_bytes(
    swinir: Model, patches: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, state = TwoDQuant(bits=4, finetuning=FEW), tmp_path / "run.state"
    monkeypatch.setattr(states, "SAVE_EVERY", 0)
    straight = method.quantize(swinir, patches).save(tmp_path / "a.safetensors")
    gradients, steps = Comparison.gradients, 0

    def killed(self: Comparison, *arguments: Any) -> dict[str, float]:
        nonlocal steps
        if steps == 5:
            raise KeyboardInterrupt
        steps += 1
        return gradients(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Comparison, "gradients", killed)
        method.quantize(swinir, patches, state)
    again = replace(method, finetuning=replace(FEW, cache=0))  # the cache's size is not part of a run
    found = again.quantize(swinir, patches, state)
    assert bounds_of(found) == bounds_of(TwoDQuant(bits=4, finetuning=FEW).quantize(swinir, patches))
    assert (
        method.quantize(swinir, patches, state).save(tmp_path / "b.safetensors").read_bytes() == straight.read_bytes()
    )
    with pytest.raises(FinetuningError, match=r"of 2dquant on .* another configuration"):
        replace(method, finetuning=replace(FEW, steps=7)).quantize(swinir, patches, state)


@pytest.mark.parametrize("fields", [{"steps": 0}, {"micro_batch": 0}, {"cache": -1}])
def test_bad_settings(fields: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="is outside"):
        LearningSettings(**fields)


def test_two_processes_give_the_result_of_one(run, low_images: Path, tmp_path: Path) -> None:
    torch.save(small_networks()["swinir"].state_dict(), tmp_path / "swinir.pth")
    words = ["quantize", tmp_path / "swinir.pth", "--method", "2dquant", "--bits", 4]
    words += ["--calibration", low_images, "--patches", 5, "--patch-size", 24]
    words += ["--set", "finetuning.steps=5", "--set", "finetuning.batch=4"]
    run(*words, "-o", tmp_path / "one.safetensors")
    run_in_two_processes(*words, "-o", tmp_path / "two.safetensors")
    one, two = (bounds_of(load(tmp_path / f"{name}.safetensors")) for name in ("one", "two"))
    differences = [abs(a - b) for name in one for a, b in zip(one[name], two[name], strict=True)]
    # Where a gradient is almost zero, its sign hangs on the order of sums, and Adam's first steps take the sign.
    assert max(differences) < 0.02
    assert np.mean(differences) < 1e-4, "while bounds move by about 0.02"
