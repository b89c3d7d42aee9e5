"""torchvision beside a PyTorch that it was not compiled for."""

from __future__ import annotations

import importlib

import torch

_KEPT_ALIVE: list[torch.library.Library] = []


def make_importable() -> None:
    """Let torchvision, where it is installed, import on a PyTorch it was not compiled for.

    Its Python part registers fake kernels for two operators of its compiled part, and fails to import where that part
    cannot be loaded, as on CPU-only builds; so does every package that imports it. Only then their signatures are
    declared here (where it can be loaded, a second declaration would end the process); nothing that srquant opens calls
    them.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT_ALIVE.append(library)
        importlib.import_module("torchvision")
