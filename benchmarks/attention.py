"""Float SwinIR against spandrel's on equal weights and inputs: python -m benchmarks.attention.

Prints a Markdown table. The two take turns on the same images; before, their outputs are compared.
One row is a single window attention, the others whole networks (SwinIR-light ×4) on images of several sizes.
"""

from __future__ import annotations

import argparse
import importlib
import statistics

import torch
from torch import nn

from benchmarks.timing import alternate, markdown, median_ratio
from srquant.networks import open_network
from srquant.networks.spandrel import import_spandrel
from srquant.support.memory import keep_freed_memory
from srquant.support.tensors import channels_last

LIGHT = {"upscale": 4, "embed_dim": 60, "window_size": 8, "mlp_ratio": 2, "upsampler": "pixelshuffledirect"}
DEPTHS = {"depths": [6, 6, 6, 6], "num_heads": [6, 6, 6, 6]}
TINY = {"depths": [2], "num_heads": [6]}


def reference(depths: dict[str, list[int]]) -> nn.Module:
    import_spandrel()
    module = importlib.import_module("spandrel.architectures.SwinIR.__arch.SwinIR")
    return module.SwinIR(**LIGHT, **depths, img_size=64).eval().requires_grad_(False)


def row(title: str, own: nn.Module, other: nn.Module, inputs: tuple[object, ...], rounds: int) -> tuple[str, ...]:
    with torch.inference_mode():
        torch.testing.assert_close(own(*inputs), other(*inputs), atol=1e-4, rtol=1e-4)
        seconds = alternate({"srquant": lambda: own(*inputs), "spandrel": lambda: other(*inputs)}, rounds)
    times = [f"{1000 * statistics.median(seconds[name]):.1f}" for name in ("srquant", "spandrel")]
    return (title, *times, f"{median_ratio(seconds, 'srquant', 'spandrel'):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tiny", action="store_true", help="One group of two blocks and small images, to try it.")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    other = reference(TINY if options.tiny else DEPTHS)
    own = channels_last(open_network(dict(other.state_dict())).requires_grad_(False))
    print(f"SwinIR-light ×4, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    block = "layers.0.residual_group.blocks.0.attn"
    windows = torch.rand(16 if options.tiny else 512, 64, 60)
    pair = own.get_submodule(block), other.get_submodule(block)
    rows = [row(f"one attention, {len(windows)} windows", *pair, (windows, None), options.rounds)]
    for height, width in ((16, 24),) if options.tiny else ((64, 64), (90, 160), (180, 320)):
        images = torch.rand(1, 3, height, width)
        rows.append(row(f"network, {width}×{height}", own, other, (images,), options.rounds))
    print(markdown(("float", "srquant (ms)", "spandrel (ms)", "ratio"), rows))


if __name__ == "__main__":
    main()
