"""A file without what nobody needs: notes of PyTorch's on every node, long names, equal constants, defaults said."""

from __future__ import annotations

from typing import Any

from srquant.engines.passes.graphs import ir

_DEFAULTS = {"output_dtype": 0, "block_size": 0, "saturate": 1, "allowzero": 0, "auto_pad": "NOTSET"}
"""Attributes that PyTorch's exporter writes though they say nothing."""


def simplify(model: Any) -> int:
    """Remove them; gives how many constants are left. Notes and names were 26 to 77 % of a file."""
    common = ir().passes.common
    for work in (common.DeduplicateInitializersPass(size_limit=1 << 40), common.CommonSubexpressionEliminationPass()):
        work(model)
    common.RemoveUnusedNodesPass()(model)
    for number, found in enumerate(model.graph):
        found.metadata_props.clear()
        found.doc_string = None
        found.name = f"{found.op_type.lower()}_{number}"
        for name, value in _DEFAULTS.items():
            if name in found.attributes and found.attributes[name].value == value:
                del found.attributes[name]
        for place, value in enumerate(found.outputs):
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.name = found.name if place == 0 else f"{found.name}_{place}"
                value.shape = value.type = None
    kept = list(model.graph.initializers.values())
    model.graph.initializers.clear()
    for number, value in enumerate(kept):
        value.name = f"constant_{number}"
        value.metadata_props.clear()
        model.graph.register_initializer(value)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    return len(kept)
