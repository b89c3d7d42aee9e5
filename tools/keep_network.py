"""Put a trained network into the zoo: stored in half precision if that costs nothing, with a model card.

    python tools/keep_network.py runs/zoo/NAME.safetensors --to zoo --data Set5/x4 --about "photographs …"

It writes ZOO/NAME.safetensors, the curve NAME.png if there is one, and NAME.md: what the network is, its scores, how it
was trained (from the header of the file), and what was measured to decide on the precision.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srquant import Model, load
from srquant.images import find_pairs
from srquant.images.evaluation import Scores, evaluate
from srquant.networks.checkpoint import read_checkpoint, read_metadata, write_checkpoint
from srquant.support.errors import ArgumentError, SrquantError
from srquant.support.files import replacing, require_apart

LEAST_CHANGE = 0.005
"""dB: a score that moves by less does not count as moved."""
LARGEST = 8 * 2**20
"""Bytes of a file of the zoo."""


def keep(trained: Path, to: Path, data: Sequence[Path], about: str) -> Path:
    """Store a network and write its card.

    Args:
        trained: What ``srquant train`` or ``tools/train_zoo.py`` wrote; its curve, ``.png``, is beside it.
        to: The zoo's folder.
        data: Pair folders to score it on.
        about: What it was trained on, for the card.

    Returns:
        The file in the zoo.

    Raises:
        ArgumentError: The file does not say how it was trained, or is larger than 8 MiB.
    """
    header = read_metadata(trained)
    if "srquant.recipe" not in header:
        raise ArgumentError(f"{trained} does not say how it was trained; give a file that srquant train wrote")
    scale = load(trained).scale
    folders = [folder for path in data for folder in find_pairs(path, scale)]
    state = read_checkpoint(trained)
    halved = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    to.mkdir(parents=True, exist_ok=True)
    kept = to / trained.name
    require_apart(kept, trained)
    with tempfile.TemporaryDirectory() as name:
        half = Path(name) / trained.name
        write_checkpoint(half, halved, header)
        full_scores, half_scores = (evaluate(load(path), folders, scale) for path in (trained, half))
        change = max(abs(a.psnr - b.psnr) for a, b in zip(full_scores, half_scores, strict=True))
        chosen, scores = (half, half_scores) if change < LEAST_CHANGE else (trained, full_scores)
        size = chosen.stat().st_size
        if size > LARGEST:
            raise ArgumentError(f"{trained} takes {size:,} bytes; a file of the zoo may take {LARGEST:,}")
        with replacing(kept) as temporary:
            shutil.copyfile(chosen, temporary)
    precision = "float16" if chosen is half else "float32"
    storage = f"{size:,} bytes in {precision} (between float32 and float16 no score moves by more than {change:.4f} dB)"
    with replacing(kept.with_suffix(".md")) as temporary:
        temporary.write_text(card(load(trained), trained, scores, about, storage))
    if trained.with_suffix(".png").exists():
        shutil.copyfile(trained.with_suffix(".png"), kept.with_suffix(".png"))
    return kept


def card(model: Model, trained: Path, scores: Sequence[Scores], about: str, storage: str) -> str:
    """The model card, in Markdown.

    Args:
        model: The network.
        trained: Its file, whose header says how it was trained, and beside which its curve is.
        scores: On each data set.
        about: What it was trained on.
        storage: Its size and precision, in words.
    """
    header = read_metadata(trained)
    recipe: dict[str, dict[str, Any]] = json.loads(header["srquant.recipe"])
    network, training = (
        ", ".join(f"{name} {value}" for name, value in recipe[part].items() if value is not None)
        for part in ("network", "training")
    )
    rows = [("", *(row.name for row in scores)), ("---", *("---" for _ in scores))]
    rows.append(("PSNR on Y (dB), a border of the scale cropped", *(f"{row.psnr:.2f}" for row in scores)))
    rows.append(("SSIM (BasicSR's dialect)", *(f"{row.ssim:.4f}" for row in scores)))
    lines = [
        f"# {trained.stem}\n",
        f"{model.network.name} ×{model.scale}, {model.sizes().parameters:,} parameters, {storage}.\n",
        *("| " + " | ".join(cells) + " |" for cells in rows),
        f"\n- **Network**: {network}",
        f"- **Data**: {about}",
        f"- **Recipe**: L1, Adam, averaged weights, the last iterate; {training}",
        f"- **Device**: {header.get('srquant.device', 'not recorded')}{_duration(trained.with_suffix('.json'))}",
        "- Nothing was selected on a benchmark.",
    ]
    if trained.with_suffix(".png").exists():
        lines.append(f"\n![loss and validation PSNR over the steps]({trained.stem}.png)")
    return "\n".join(lines) + "\n"


def _duration(curve: Path) -> str:
    """Of the training, if its curve is there."""
    if not curve.exists():
        return ""
    last = json.loads(curve.read_text())[-1]
    return f", {last['seconds'] / 60:.0f} minutes for {last['step']:,} steps"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; a mistake of the user's gives 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="a trained network, .safetensors")
    parser.add_argument("--to", type=Path, default=Path("zoo"), help="the zoo (%(default)s)")
    parser.add_argument("--data", type=Path, action="append", required=True, help="pair folder to score it on; several")
    parser.add_argument("--about", required=True, help="what it was trained on, for the card")
    options = parser.parse_args(words)
    try:
        print(f"wrote {keep(options.network, options.to, options.data, options.about)}")
    except SrquantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
