"""Nothing written into a tensor, as masks of windows are made with a shift of zero: OpenVINO refuses such files."""

from __future__ import annotations

from typing import Any

from srquant.engines.passes.graphs import constant_of


def drop_empty_scatters(model: Any) -> int:
    """Leave out scatters of no values; gives how many."""
    dropped = 0
    for scatter in list(model.graph):
        values = constant_of(scatter.inputs[2]) if scatter.op_type == "ScatterND" else None
        if values is not None and not values.size:
            scatter.outputs[0].replace_all_uses_with(scatter.inputs[0], replace_graph_outputs=True)
            model.graph.remove(scatter, safe=True)
            dropped += 1
    return dropped
