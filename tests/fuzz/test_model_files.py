"""Damaged files of quantized models."""

from __future__ import annotations

from random import Random

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.damage import damaged, edit_text, edited, join_model, seeds, split_model
from tests.fuzz.lab import Lab, fuzzing

MODELS = ("edsr_minmax", "srresnet_plq", "swinir_mse", "edsr_int8")


def use(lab: Lab, random: Random, content: bytes) -> None:
    """Look at the model, or let it enlarge a picture, or export it."""
    model = lab.given("m.safetensors", content)
    match random.choice(("inspect", "upscale", "upscale", "export")):
        case "inspect":
            lab.law("inspect", model)
        case "upscale":
            lab.law("upscale", model, lab.inputs / "p.png", "-o", lab.out / "q.png")
        case _:
            lab.law("export", model, "-o", lab.out / "m.onnx", "--engine", "onnxruntime", "--threads", 1)


@fuzzing(60)
@given(random=seeds(), name=st.sampled_from(MODELS))
def test_damaged_bytes(lab: Lab, random: Random, name: str) -> None:
    lab.clear()
    use(lab, random, damaged(random, (lab.inputs / f"{name}.safetensors").read_bytes()))


@fuzzing(120)
@given(random=seeds(), name=st.sampled_from(MODELS), part=st.sampled_from(("config", "config", "record", None)))
def test_edited_headers(lab: Lab, random: Random, name: str, part: str | None) -> None:
    lab.clear()
    header, index, blobs = split_model((lab.inputs / f"{name}.safetensors").read_bytes())
    header = edited(random, header, None if part is None else (part,))
    use(lab, random, join_model(header, index, blobs))


@fuzzing(100)
@given(random=seeds(), name=st.sampled_from(MODELS))
def test_edited_indices(lab: Lab, random: Random, name: str) -> None:
    lab.clear()
    header, index, blobs = split_model((lab.inputs / f"{name}.safetensors").read_bytes())
    use(lab, random, join_model(header, edited(random, index), blobs))


@fuzzing(40)
@given(random=seeds(), name=st.sampled_from(MODELS), change=st.sampled_from((-1000, -1, 1, 1000)))
def test_tensors_of_another_length_or_kind(lab: Lab, random: Random, name: str, change: int) -> None:
    lab.clear()
    header, index, blobs = split_model((lab.inputs / f"{name}.safetensors").read_bytes())
    key = random.choice(sorted(blobs))
    value = blobs[key]
    match random.choice(("length", "kind", "values", "shape", "without")):
        case "length":
            blobs[key] = value[:change] if change < 0 else torch.cat([value, value.repeat(change)[:change]])
        case "kind":
            kinds = (torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.uint8, torch.float64)
            blobs[key] = value.to(random.choice(kinds))
        case "values" if value.is_floating_point():
            odd = random.choice((float("nan"), float("inf"), 0.0, -1.0, 1e38))
            blobs[key] = torch.where(torch.arange(len(value)) % 7 == 0, odd, value)
        case "shape":
            blobs[key] = value[None]
        case _:
            del blobs[key]
    use(lab, random, join_model(header, None if key == "index" else index, blobs))


@fuzzing(30)
@given(random=seeds(), name=st.sampled_from(MODELS))
def test_edited_offsets(lab: Lab, random: Random, name: str) -> None:
    lab.clear()
    content = (lab.inputs / f"{name}.safetensors").read_bytes()
    use(lab, random, edit_text(content, lambda header: edited(random, header)))
