"""Changes to an exported graph, one idea a file, each a function that takes a model of onnx_ir and changes it in place.

Each gives a number, of what it did; what it is for, and what it gained where that was measured, is said in its file.
"""

from __future__ import annotations

from typing import Any

from srquant.engines.passes.attention import group_attentions
from srquant.engines.passes.constants import store_constants
from srquant.engines.passes.graphs import ir
from srquant.engines.passes.pixels import convolve_pixels
from srquant.engines.passes.plain import simplify
from srquant.engines.passes.relus import join_relus
from srquant.engines.passes.scatters import drop_empty_scatters
from srquant.engines.passes.shuffles import order_channels, shuffle_last
from srquant.engines.passes.weights import store_four_bits, turn_weights
from srquant.support.extras import import_extra

_LARGEST = 4096
"""Elements of constants that the general optimizer may compute and store."""


def optimize(model: Any, *, fixed: bool, four_bits: bool) -> None:
    """All passes, in their order, in place.

    Args:
        model: As PyTorch's exporter writes it.
        fixed: The image has one size.
        four_bits: Store weights of up to four bits as such.
    """
    ir().passes.common.InlinePass()(model)
    store_constants(model)
    optimizer = import_extra("onnxscript.optimizer", "exporting to ONNX", "onnx")
    optimizer.optimize_ir(model, output_size_limit=_LARGEST, inline=False)
    drop_empty_scatters(model)
    turn_weights(model)
    join_relus(model)
    shuffle_last(model)
    order_channels(model)
    if fixed:
        group_attentions(model)
        convolve_pixels(model)
    if four_bits:
        store_four_bits(model)
    simplify(model)
