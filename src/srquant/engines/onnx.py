"""A quantized model as an ONNX file that engines run in eight-bit integers.

The way of a model into a file::

    operands.py      each quantized layer's operands as integers, or why they are none
    markers.py       the network with two marker operators in the layers' places, products left as they are
    tracing.py       torch.export for one size or for all, checked at another size; torch.onnx
    translation.py   what the markers are in ONNX
    passes/          small changes to the graph, one idea a file
    onnx.py          what the file says of itself, the checker, the file

Every quantized layer becomes QuantizeLinear – DequantizeLinear on its input (unsigned), DequantizeLinear on its weight
(signed, a scale for each output channel) and the float operator between them: the form that engines recognise and
replace by one integer operator (U8S8). Weights of fewer bits are widened to int8: engines compute with four-bit weights
in float. Everything else stays float: biases, residual additions, norms, softmax.

Attention products are written as products of floats that were rounded to the grids' values: of two operands that change
with the image, with their own offsets, OpenVINO makes no integer product, and so the integers would only be in the way.

Which models fit. An operand must lie on integers (:func:`srquant.quantizers.numerics.integers.integer_grid`), at most
256 neighbouring ones, zero among them: the engine's zero point is an integer, and zero padding inserts an exact 0. Free
bounds do not give that, not even uniform ones, whose zero point is ``−l / scale``, and neither do symmetric weights of
8 bits, whose levels are half-integers. The remedy is ``grid=int8`` when quantizing, which moves bounds by less than an
interval. The other way out, a padded tensor of ones for the offset, would need a second convolution.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from srquant.engines.exported import Contract
from srquant.engines.markers import Face
from srquant.engines.operands import ExportSettings, IntegerOperands
from srquant.engines.passes import optimize
from srquant.engines.standard import IR_VERSION
from srquant.engines.tracing import as_onnx, follow, smallest, takes_one_image
from srquant.model import Model
from srquant.model.swapping import quant_layers
from srquant.support.errors import ArgumentError, first_line
from srquant.support.extras import import_extra
from srquant.support.files import replacing, require_writable
from srquant.support.settings import to_json

USUAL_TILE = 128
"""Height and width, at least, of the images that a file takes whose network computes with their size."""


def require_onnx(path: Path) -> None:
    """Refuse a name that does not end in ``.onnx``.

    Raises:
        ArgumentError: It does not.
    """
    if path.suffix != ".onnx":
        raise ArgumentError(f"{path}: exported models are .onnx files; give a name that ends so")


def write_onnx(model: Model, path: Path, settings: ExportSettings) -> Contract:
    """Write a model as ONNX, all or nothing, without running it.

    Args:
        model: Quantized, on integers; or float.
        path: An ``.onnx`` file.
        settings: How.

    Returns:
        What the file says of itself.

    Raises:
        ArgumentError: The model does not fit integers, or its network cannot be written; a tile is too small; a setting
            is for the other kind of model.
        MissingExtraError: The ``onnx`` extra is not installed.
        OutputError: The file cannot be written.
    """
    require_onnx(path)
    require_fitting(model, settings)
    if settings.range == "auto":
        settings = replace(settings, range="full")
    record = model.record
    model = model.to("cpu")  # where it is followed
    contract = replace(_contract(model, settings.tile), export=to_json(settings))
    dtype = getattr(torch, settings.precision)
    if record is None:
        return _write(model, path, contract, {}, dtype=dtype)
    layers = _operands(model, settings)
    contract = replace(
        contract,
        saturates=any(operands.saturates for operands in layers.values()),
        method=record.method,
        settings=record.settings,
        calibration=record.calibration,
        versions=record.versions,
    )
    return _write(model, path, contract, layers, four_bits=settings.storage == "int4")


def require_exportable(model: Model, tile: tuple[int, int] | None) -> None:
    """See, before long work starts, that a float network can be written as ONNX; nothing is written.

    Args:
        model: Float.
        tile: Height and width of the images that the file shall take; None for any.

    Raises:
        ArgumentError: It cannot; what stands in the way is named.
        MissingExtraError: The ``onnx`` extra is not installed.
    """
    model = model.to("cpu")
    _content(model, _contract(model, tile), {})


def require_fitting(model: Model, settings: ExportSettings) -> None:
    """Refuse settings that are for the other kind of model.

    Raises:
        ArgumentError: They are.
    """
    usual = ExportSettings()
    if model.record is not None:
        if settings.precision != usual.precision:
            raise ArgumentError(
                f"precision={settings.precision} is for float networks, and {model.source} is quantized here; export "
                f"the float network, or leave it out"
            )
        return
    for name in ("storage", "range", "activations"):
        if (value := getattr(settings, name)) != getattr(usual, name):
            raise ArgumentError(
                f"{name}={value} is for quantized models, and {model.source} is a float network; quantize it first, "
                f"with grid=int8, or leave it out"
            )


def can_saturate(model: Model) -> bool:
    """Whether two products of a quantized model, in full range, can add up to more than 16 bits hold.

    Raises:
        ArgumentError: It does not fit integers.
    """
    return any(operands.saturates for operands in _operands(model, ExportSettings(range="full")).values())


def _operands(model: Model, settings: ExportSettings) -> dict[str, IntegerOperands]:
    if model.bits_follow_image:
        raise ArgumentError(
            f"{model.source}: the bits of its activations follow the image, and an exported file has one grid for each "
            f"layer; quantize again with grid=int8, by a method whose bits are the layer's (srquant methods lists them)"
        )
    return {name: IntegerOperands(name, layer, settings) for name, layer in quant_layers(model.network).items()}


def _contract(model: Model, tile: tuple[int, int] | None) -> Contract:
    return Contract(
        scale=model.scale,
        tile=tile,
        alignment=model.network.alignment,
        receptive_field=model.receptive_field,
        saturates=False,
        network=model.network.name,
        source=model.source,
        method="float",
    )


def _write(
    model: Model,
    path: Path,
    contract: Contract,
    layers: Mapping[str, IntegerOperands],
    *,
    four_bits: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Contract:
    require_writable(path)
    contract, content = _content(model, contract, layers, four_bits=four_bits, dtype=dtype)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return contract


def _content(
    model: Model,
    contract: Contract,
    layers: Mapping[str, IntegerOperands],
    *,
    four_bits: bool = False,
    dtype: torch.dtype = torch.float32,
) -> tuple[Contract, bytes]:
    """What the file says of itself, and all of it."""
    import_extra("onnx", "exporting to ONNX", "onnx")
    if contract.tile is not None:
        contract.tiling()  # refuses tiles that are too small
    face = Face(model, layers, dtype).eval()
    found = follow(model.network, face, contract.tile)
    if found is None:
        contract = replace(contract, tile=_usual_tile(contract))
        found = follow(model.network, face, contract.tile)
    assert found is not None
    if contract.tile is None:
        one_image, least = takes_one_image(found.program), smallest(model.network)
        contract = replace(contract, alignment=found.step, one_image=one_image, smallest=least)
    graph = as_onnx(found.program)
    optimize(graph, fixed=contract.tile is not None, four_bits=four_bits)
    return contract, _checked(graph, contract)


def _usual_tile(contract: Contract) -> tuple[int, int]:
    """What a file takes that cannot take any size, where nothing else is asked for."""
    least = max(USUAL_TILE, 4 * contract.overlap)
    size = least + -least % contract.alignment
    return size, size


def _checked(graph: Any, contract: Contract) -> bytes:
    """The content of the file."""
    ir, onnx = (import_extra(package, "exporting to ONNX", "onnx") for package in ("onnx_ir", "onnx"))
    height, width = contract.tile or ("height", "width")
    enlarged = [
        f"{contract.scale}*{size}" if isinstance(size, str) else contract.scale * size for size in (height, width)
    ]
    count = 1 if contract.tile is not None or contract.one_image else "images"
    graph.graph.name = graph.producer_name = "srquant"
    graph.producer_version = contract.versions.get("srquant", "")
    graph.ir_version = IR_VERSION
    graph.metadata_props[Contract.KEY] = json.dumps(to_json(contract))
    graph.metadata_props.update(contract.plain())
    graph.doc_string = contract.describe()
    graph.graph.inputs[0].shape = ir.Shape([count, 3, height, width])
    graph.graph.outputs[0].shape = ir.Shape([count, 3, *enlarged])
    content = ir.to_proto(graph)
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:
        # The checker's and the shape inference's errors have no common base.
        raise ArgumentError(f"the network computes what srquant cannot write as ONNX: {first_line(error)}") from error
    return content.SerializeToString()
