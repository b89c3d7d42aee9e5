"""Files that earlier versions wrote, kept in ``tests/data``: they open, and give what they gave.

``srresnet_format1`` (OAPTQ at 4 bits, learned for one epoch, batch norms folded, edges float) and ``swinir_format1``
(percentiles at 3 bits, weights per channel, attention products) were written on 2026-11-25.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from srquant.model import load
from srquant.model.storage import HEADER
from srquant.networks.checkpoint import read_metadata

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize(
    ("name", "bits", "mean", "pixel"),
    [
        ("srresnet_format1", {4}, -0.0046, (0.0720, -0.0982, -0.0460)),
        ("swinir_format1", {3, 8}, 0.4225, (0.7015, 0.2229, 0.2747)),
    ],
)
def test_an_earlier_file_opens_and_gives_what_it_gave(
    name: str, bits: set[int], mean: float, pixel: tuple[float, ...], tmp_path: Path
) -> None:
    model = load(DATA / f"{name}.safetensors")
    assert {layer.left.bits for layer in model.layers()} == bits
    enlarged = model(torch.linspace(0, 1, 3 * 8 * 8).reshape(1, 3, 8, 8))
    assert float(enlarged.mean()) == pytest.approx(mean, abs=2e-3)
    torch.testing.assert_close(enlarged[0, :, 3, 5], torch.tensor(pixel), atol=2e-2, rtol=0)
    again = model.save(tmp_path / "again.safetensors")
    assert load(again).record == model.record
    now, then = (json.loads(read_metadata(path)[HEADER]) for path in (again, DATA / f"{name}.safetensors"))
    assert then["record"].pop("scores") == {}, "which nothing ever set"
    assert keeps(now, then), "the same names in its header, new ones beside them"


def keeps(now: object, then: object) -> bool:
    """Whether JSON has all that earlier JSON had."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and keeps(now[key], value) for key, value in then.items())
    return now == then
