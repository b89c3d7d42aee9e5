"""Test2K and Test4K, made of pictures of 8K.

Source: ClassSR (CVPR 2021), whose test sets OAPTQ's table 2 uses: pictures 1201 to 1300 of DIV8K, downsampled to 2K,
are Test2K, and 1301 to 1400, downsampled to 4K, Test4K. By how much is not printed; here by 4 and by 2, with MATLAB's
bicubic, which makes 1,920 and 3,840 of 7,680 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from srquant.images.bicubic import crop_to_multiple, shrink_8bit
from srquant.images.listing import list_images
from srquant.images.picture import Layout, Picture
from srquant.images.reading import read_picture
from srquant.images.writing import write_picture
from srquant.support.errors import ImageError
from srquant.support.files import require_apart
from srquant.support.progress import bar
from srquant.support.tensors import planes


@dataclass(frozen=True)
class LargeSet:
    """Which pictures, and how many times smaller."""

    first: int
    last: int
    factor: int


LARGE_SETS = {"Test2K": LargeSet(1201, 1300, 4), "Test4K": LargeSet(1301, 1400, 2)}


def make_large_sets(
    pictures: Path | str, output: Path | str, sets: Mapping[str, LargeSet] = LARGE_SETS
) -> dict[str, int]:
    """Make the HR images of the sets; LR images are made of them when they are scored on.

    Pictures that are there already are left alone, so that it goes on after an interruption.

    Args:
        pictures: A folder of DIV8K's pictures, ``1201.png`` and so on, with all folders in it.
        output: The sets are made in it: ``Test2K/HR``, ``Test4K/HR``.
        sets: By name.

    Returns:
        How many pictures each set has; sets without any are left out.

    Raises:
        ImageError: No picture has a number of a set, or one cannot be read.
        OutputError: A picture cannot be written.
    """
    numbered = {path: int(path.stem) for path in list_images(Path(pictures), recursive=True) if path.stem.isdecimal()}
    chosen = {
        name: [path for path, number in numbered.items() if each.first <= number <= each.last]
        for name, each in sets.items()
    }
    if not any(chosen.values()):
        ranges = ", ".join(f"{each.first} to {each.last} ({name})" for name, each in sets.items())
        raise ImageError(f"{pictures} holds no pictures of the numbers {ranges}; give the folder of DIV8K's pictures")
    with bar("Shrinking", sum(map(len, chosen.values()))) as shown:
        for name, paths in chosen.items():
            for path in paths:
                target = Path(output) / name / "HR" / f"{path.stem}.png"
                require_apart(target, Path(pictures), below=True)
                if not target.exists():
                    _shrink(path, target, sets[name].factor)
                shown.advance(1, name)
    return {name: len(paths) for name, paths in chosen.items() if paths}


def _shrink(source: Path, target: Path, factor: int) -> None:
    with torch.inference_mode():
        high = crop_to_multiple(planes(read_picture(source).rgb8()), factor)
        if 0 in high.shape:
            raise ImageError(f"{source} is smaller than the factor {factor} that it is shrunk by")
        low = shrink_8bit(high, factor).permute(1, 2, 0).contiguous().numpy()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_picture(target, Picture(low, Layout()))
