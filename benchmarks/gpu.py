"""EDSR-baseline on a GPU, half precision against bytes: python -m benchmarks.gpu NETWORK PHOTOGRAPHS.

Prints a Markdown table; the rows take turns on one image. Half precision is PyTorch's own convolutions on channels-last
tensors. Bytes are products of int8 matrices (``torch._int_mm``) on windows of pixels that were written one after the
other; what is between the convolutions is float16. Both also as CUDA graphs, which leave out the time to start
operators. How well each agrees with the simulated model is printed: a fast row that computes something else is worth
nothing. Without a GPU, ``--device cpu --size 48x32`` tries the script; its times then say nothing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import alternate, markdown, median_ratio
from srquant import Calibration, Model, configure, load, quantize
from srquant.engines.operands import ExportSettings, IntegerOperands
from srquant.model.survey import survey
from srquant.model.swapping import copy_network, quant_layers, replace

W8A8 = configure("mse", 8, settings=["grid=int8", "weights.granularity=per_channel"])
_MULTIPLE = 8
"""Rows and columns of an int8 product come in multiples of this."""


class ByteConv(nn.Module):
    """A quantized convolution, stride one, padded with zeros to its own size: one product of int8 matrices."""

    def __init__(self, operands: IntegerOperands) -> None:
        super().__init__()
        integers, scale = operands.weight_integers()
        self.kernel = integers.shape[-1]
        self.channels = len(integers)
        grid = operands.left
        self.low, self.high = grid.low, grid.high
        self.shift = -128 - grid.low
        rows = integers.permute(0, 2, 3, 1).flatten(1)  # windows are written row, column, channel
        short = [-side % _MULTIPLE for side in rows.shape]
        self.register_buffer("weight", F.pad(rows, (0, short[1], 0, short[0])).T.contiguous())
        self.register_buffer("inverse", 1 / grid.scale.float())
        self.register_buffer("scale", (scale * grid.scale).float())
        bias = torch.zeros(self.channels) if operands.layer.bias is None else operands.layer.bias.detach()
        offset = self.shift * rows.long().sum(1)
        self.register_buffer("bias", bias - offset * self.get_buffer("scale"))

    def forward(self, x: Tensor) -> Tensor:
        """``n c h w``, as channels last."""
        images, _, height, width = x.shape
        whole = (x.permute(0, 2, 3, 1) * self.get_buffer("inverse").to(x.dtype)).round_()
        codes = (whole.clamp_(self.low, self.high) + self.shift).to(torch.int8)
        side = self.kernel // 2
        codes = F.pad(codes, (0, 0, side, side, side, side), value=self.shift)
        windows = codes.unfold(1, self.kernel, 1).unfold(2, self.kernel, 1).permute(0, 1, 2, 4, 5, 3)
        rows = windows.reshape(images * height * width, -1)
        weight = self.get_buffer("weight")
        rows = F.pad(rows, (0, len(weight) - rows.shape[1]))
        sums = torch._int_mm(rows, weight)[:, : self.channels]
        output = torch.addcmul(self.get_buffer("bias"), sums, self.get_buffer("scale")).to(x.dtype)
        return output.view(images, height, width, -1).permute(0, 3, 1, 2)


def in_bytes(model: Model) -> nn.Module:
    network = copy_network(model.network)
    for name, layer in quant_layers(network).items():
        replace(network, name, ByteConv(IntegerOperands(name, layer, ExportSettings())))
    return network


def runner(network: nn.Module, value_range: float, device: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The network in a precision; bytes keep their float32 scales."""
    module = network.to(device=device, memory_format=torch.channels_last).eval()
    for child in module.modules():
        if not isinstance(child, ByteConv):
            for tensor in (*child.parameters(recurse=False), *child.buffers(recurse=False)):
                tensor.data = tensor.data.to(dtype)

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        given = images.to(dtype).to(memory_format=torch.channels_last)
        return (module(given * value_range) / value_range).float()

    return run


def graph(run: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[Tensor], Tensor]:
    """The same operators, started at once; the input is always this tensor."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(images)
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        output = run(images)

    def replay(_images: Tensor) -> Tensor:
        captured.replay()
        return output

    return replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--size", default="480x270", help="width x height, of the LR image")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    network = load(options.network)
    patches = Calibration.from_photographs(options.photographs, network.scale, count=16, size=48)
    model = quantize(network, patches, W8A8, device="cpu")
    width, height = map(int, options.size.split("x"))
    images = F.interpolate(patches.batch([0]), (height, width), mode="bicubic").clamp(0, 1)
    expected = {"float": network(images), "W8A8": model(images)}
    images = images.to(options.device)

    def opened(precision: torch.dtype) -> Callable[[Tensor], Tensor]:
        return runner(copy_network(network.network), network.network.value_range, options.device, precision)

    rows = {
        "float, float32": opened(torch.float32),
        "float, float16": opened(torch.float16),
        "float, bfloat16": opened(torch.bfloat16),
        "W8A8, bytes": runner(in_bytes(model), network.network.value_range, options.device, torch.float16),
    }
    if options.device == "cuda":
        rows |= {f"{name}, graph": graph(run, images) for name, run in rows.items()}

    def finished(run: Callable[[Tensor], Tensor]) -> None:
        run(images)
        if options.device == "cuda":
            torch.cuda.synchronize()

    agreement = {
        name: -10 * float((run(images).cpu() - expected[name.split(",")[0]]).square().mean().log10())
        for name, run in rows.items()
    }
    seconds = alternate({name: partial(finished, run) for name, run in rows.items()}, options.rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((name for name in rows if name.startswith("float")), key=median.__getitem__)
    work = survey(network.network).multiply_adds * width * height / 1e12
    lines = [
        (
            name,
            f"{1000 * median[name]:.2f}",
            f"{1 / median_ratio(seconds, name, best):.2f}",
            f"{work / median[name]:.1f}",
            f"{agreement[name]:.1f}",
        )
        for name in rows
    ]
    where = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, to try the script: times say nothing"
    print(f"{options.network.name}, LR {options.size}, {where}, torch {cast(str, torch.__version__)}\n")
    print(markdown(("network", "ms", "× best float", "T multiply-adds/s", "agrees, dB"), lines))


if __name__ == "__main__":
    main()
