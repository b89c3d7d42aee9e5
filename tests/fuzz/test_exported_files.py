"""Damaged ONNX files."""

from __future__ import annotations

import json
from random import Random

import onnx
import pytest
from hypothesis import given
from tests.fuzz.damage import ODD, damaged, edited, seeds
from tests.fuzz.lab import Lab, fuzzing

from srquant.engines import TARGETS

CONTRACT = "srquant.export"


def use(lab: Lab, random: Random, content: bytes, engines: tuple[str, ...]) -> None:
    path = lab.given("m.onnx", content)
    options = ("--engine", random.choice(engines), "--threads", 1)
    if random.random() < 0.7:
        lab.law("upscale", path, lab.inputs / "p.png", "-o", lab.out / "q.png", *options)
    else:
        lab.law("evaluate", path, lab.inputs / "Set", "--json", lab.out / "s.json", *options)


@fuzzing(60)
@given(random=seeds())
def test_damaged_bytes(lab: Lab, random: Random) -> None:
    lab.clear()
    use(lab, random, damaged(random, (lab.inputs / "edsr.onnx").read_bytes()), tuple(TARGETS))


@fuzzing(50)
@given(random=seeds())
def test_edited_metadata(lab: Lab, random: Random) -> None:
    lab.clear()
    model = onnx.load(lab.inputs / "edsr.onnx")
    (entry,) = (entry for entry in model.metadata_props if entry.key == CONTRACT)
    if random.random() < 0.2:
        entry.value = random.choice(("", "{", "[]", "null", "3", '"x"', "é" * 9, json.dumps(random.choice(ODD[:9]))))
    else:
        entry.value = json.dumps(edited(random, json.loads(entry.value)))
    use(lab, random, model.SerializeToString(), tuple(TARGETS))


@fuzzing(40)
@given(random=seeds())
def test_edited_graphs(lab: Lab, random: Random) -> None:
    """Readable files whose nodes, constants or shapes are not those that were written."""
    lab.clear()
    model = onnx.load(lab.inputs / "edsr.onnx")
    node, constant = random.choice(model.graph.node), random.choice(model.graph.initializer)
    match random.choice(("lose", "rename", "operator", "shorter", "other", "input", "output", "external")):
        case "lose":
            model.graph.node.remove(node)
        case "rename":
            node.input[0] = "nothing"
        case "operator":
            node.op_type = random.choice(("Relu", "Conv", "Nothing", "Loop"))
        case "shorter":
            constant.raw_data = constant.raw_data[:-1]
        case "other" if constant.dims:
            constant.dims[0] += 1
        case "input":
            model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
        case "output":
            model.graph.output[0].name = "other"
        case _:
            constant.data_location = onnx.TensorProto.EXTERNAL
            constant.external_data.add(key="location", value=str(lab.inputs / "p.png"))
            constant.ClearField("raw_data")
    use(lab, random, model.SerializeToString(), tuple(TARGETS))


@pytest.mark.parametrize("engine", TARGETS)
def test_a_whole_file_does(lab: Lab, engine: str) -> None:
    lab.clear()
    words = ("upscale", lab.inputs / "edsr.onnx", lab.inputs / "p.png", "-o", lab.out / "q.png", "--engine", engine)
    assert lab.law(*words, "--threads", 1) == 0
