from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srquant.images.bicubic import crop_to_multiple, resize, shrink_8bit
from srquant.support.errors import ArgumentError


def resample_slowly(line: list[float], scale: float, border: str) -> list[float]:
    """One line, pixel by pixel: the kernel widened by 1/scale when shrinking, weights normalised."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    narrowing, size = min(scale, 1.0), len(line)
    result = []
    for output in range(int(np.ceil(size * scale))):
        centre = (output + 0.5) / scale - 0.5
        reach = 2 / narrowing
        total = value = 0.0
        for place in range(int(np.floor(centre - reach)), int(np.ceil(centre + reach)) + 1):
            weight = narrowing * cubic(narrowing * (centre - place))
            index = min(max(place, 0), size - 1)
            if border == "mirror":
                index = place % (2 * size)
                index = min(index, 2 * size - 1 - index)
            total += weight
            value += weight * line[index]
        result.append(value / total)
    return result


@pytest.mark.parametrize("border", ["replicate", "mirror"])
@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 0.37, 2.0, 3.0, 1.6])
def test_against_a_slow_twin(scale: float, border: str) -> None:
    line = torch.rand(24, dtype=torch.float64)
    found = resize(line[None, None].expand(1, 24, 24), scale, border)[0, -1]  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx(resample_slowly(line.tolist(), scale, border), abs=1e-12)


def test_both_axes_and_shapes() -> None:
    images = torch.rand(2, 3, 12, 20)
    assert resize(images, 4).shape == (2, 3, 48, 80)
    assert resize(images, 1 / 4).shape == (2, 3, 3, 5)
    torch.testing.assert_close(resize(images.mT, 3), resize(images, 3).mT)


def test_a_constant_stays_and_gradients_flow() -> None:
    images = torch.full((1, 3, 9, 9), 0.3, requires_grad=True)
    small = resize(images, 1 / 3)
    torch.testing.assert_close(small, torch.full((1, 3, 3, 3), 0.3))
    small.sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad.sum(), small.detach().new_tensor(27.0))


def test_eight_bits_round_and_clip_between_the_passes() -> None:
    """A checkerboard of extremes overshoots in the first pass; unclipped it would leave another result."""
    pattern = ((torch.arange(16)[:, None] // 4 + torch.arange(16) // 4) % 2 * 255).byte().expand(3, -1, -1)
    exact = resize(pattern.double(), 1 / 2)
    found = shrink_8bit(pattern, 2)

    def halve(lines: torch.Tensor) -> torch.Tensor:
        return torch.tensor([resample_slowly(line.tolist(), 0.5, "replicate") for line in lines])

    rounded = (halve(pattern[0].T.double()).T + 0.5).floor().clamp(0, 255)
    slow = halve(rounded)
    assert torch.equal(found[0], (slow + 0.5).floor().clamp(0, 255).byte())
    assert not torch.equal(found.double(), (exact + 0.5).floor().clamp(0, 255))


def test_sizes_must_fit() -> None:
    image = torch.zeros(3, 10, 9, dtype=torch.uint8)
    with pytest.raises(ArgumentError, match="9x10 is not a multiple of scale=4"):
        shrink_8bit(image, 4)
    assert crop_to_multiple(image, 4).shape == (3, 8, 8)


def read(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14", "BSD100"])
def test_every_pixel_of_the_benchmarks_is_reproduced(shared: Path, name: str, scale: int) -> None:
    folder = shared / "data" / name / f"x{scale}"
    if not folder.is_dir():
        pytest.skip(f"{name} has no x{scale}")
    files = sorted((folder / "HR").glob("*.png"))
    assert files
    for path in files:
        assert torch.equal(shrink_8bit(read(path), scale), read(folder / "LR" / path.name)), path


def test_mirrored_borders_differ_only_at_the_border(shared: Path) -> None:
    image = read(shared / "data/Set5/x4/HR/001.png")
    replicated, mirrored = (shrink_8bit(image, 4, border) for border in ("replicate", "mirror"))  # type: ignore[arg-type]
    assert not torch.equal(replicated, mirrored)
    assert torch.equal(replicated[:, 2:-2, 2:-2], mirrored[:, 2:-2, 2:-2])
