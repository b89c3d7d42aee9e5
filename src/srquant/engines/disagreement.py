"""Why an engine does not compute what a file says: found out by trying, not guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from srquant.engines.exported import Exported
from srquant.engines.targets import TARGETS, Target
from srquant.model import Model
from srquant.model.observing import to_network
from srquant.model.swapping import copy_network
from srquant.support.errors import SrquantError

Open = Callable[[Path, Target], Exported]
Agree = Callable[[Callable[[Tensor], Tensor]], float]
"""PSNR in dB between what runs a file, or a model, and the model that the file describes."""


def cause(target: Target, path: Path, model: Model, open_in: Open, agree: Agree, least: float) -> str:
    """What is at fault when an engine and a model disagree, and the way out, in words.

    The same file is run in the other engines that are installed: one that agrees shows that the file is right. If none
    does, the model is computed in float64: where that alone changes its output as much, values lie so near the middle
    between two levels that any other order of sums tips them.

    Args:
        target: The engine that disagrees.
        path: The file it was given.
        model: What the file says.
        open_in: Opens a file in an engine.
        agree: Compares with the model.
        least: PSNR in dB from which on they agree.
    """
    others = [other for other in TARGETS.values() if other is not target and other.installed]
    found: list[str] = []
    for other in others:
        try:
            psnr = agree(open_in(path, other))
        except SrquantError as error:
            found.append(f"{other.title} does not run it ({error})")
            continue
        if psnr >= least:
            return f"a fault of {target.title}, as {other.title} agrees to {psnr:.1f} dB; take --engine {other.name}"
        found.append(f"{other.title} agrees to {psnr:.1f} dB")
    steadiness = agree(in_float64(model))
    if steadiness < least:
        return (
            f"the model itself agrees with itself in float64 to {steadiness:.1f} dB only: its values lie so near the "
            f"middle between two levels that another order of sums tips them; quantize it again with more bits"
        )
    if found:
        return f"a fault of the file, and so of srquant: {'; '.join(found)}"
    names = " or ".join(f"--engine {name}" for name, other in TARGETS.items() if other is not target)
    return f"a fault of {target.title}, or of srquant; to find out, install another engine and take {names}"


def in_float64(model: Model) -> Callable[[Tensor], Tensor]:
    """The model with its sums in float64; same arguments, result in float32."""
    network = copy_network(model.network).double()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return (network(to_network(network, images.float()).double()) / network.value_range).float()

    return run
