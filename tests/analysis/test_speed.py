"""Timing in turns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from srquant.analysis import speed
from srquant.analysis.speed import measure_speed
from srquant.support.errors import ArgumentError


def test_rounds_take_turns_and_the_first_one_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only the runs move: one takes 8, the other 2 seconds, and 100 when they run first."""
    now, order = [0.0], list[str]()

    def takes(name: str, seconds: float) -> object:
        def run(image: Tensor) -> Tensor:
            assert image.shape == (1, 3, 10, 20)
            now[0] += seconds if name in order else 100
            order.append(name)
            return image

        return run

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    found = measure_speed({"slow": takes("slow", 8), "fast": takes("fast", 2)}, (10, 20), 3)  # type: ignore[dict-item]
    assert order == ["slow", "fast"] * 4
    assert [(row.name, row.seconds, row.times) for row in found] == [("slow", (8,) * 3, 1), ("fast", (2,) * 3, 4)]
    assert found[1].milliseconds == 2000
    assert found[1].megapixels_per_second == pytest.approx(200 / 1e6 / 2)


@pytest.mark.parametrize(("size", "rounds"), [((0, 5), 1), ((5, 99_999), 1), ((5, 5), 0)])
def test_mistakes(size: tuple[int, int], rounds: int) -> None:
    with pytest.raises(ArgumentError, match=r"is outside|rounds=0|size="):
        measure_speed({"x": torch.clone}, size, rounds)
