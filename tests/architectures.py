"""Small networks of the architectures that spandrel opens, with the arguments that make each small."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from srquant.networks.spandrel import SpandrelNetwork, import_spandrel

_WINDOWS: dict[str, Any] = {"depths": (2, 2), "num_heads": (2, 2), "window_size": 8, "upscale": 2}
_SHUFFLE: dict[str, Any] = {"embed_dim": 12, "upsampler": "pixelshuffledirect", **_WINDOWS}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "ATD": ("ATD", _SHUFFLE | {"category_size": 64, "num_tokens": 8}),
    "Compact": ("SRVGGNetCompact", {"num_feat": 8, "num_conv": 2}),
    "CRAFT": ("CRAFT", {"embed_dim": 12, "depths": [2], "num_heads": [2], "upscale": 2}),
    "DAT": (
        "DAT",
        {"embed_dim": 16, "depth": [2], "num_heads": [2], "split_size": [4, 8], "upsampler": "pixelshuffledirect"},
    ),
    "DCTLSA": ("DCTLSA", {"nf": 10, "upscale": 2}),
    "DITN": ("DITN_Real", {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "upscale": 2}),
    "DRCT": ("DRCT", {"embed_dim": 12, "upsampler": "pixelshuffle", **_WINDOWS, "gc": 4}),
    "ESRGAN": ("RRDBNet", {"num_filters": 8, "num_blocks": 1, "scale": 2}),
    "ESRGAN plus": ("RRDBNet", {"num_filters": 8, "num_blocks": 1, "plus": True}),
    "FDAT": ("FDAT", {"embed_dim": 16, "num_groups": 1, "num_heads": 2, "scale": 2, "mid_dim": 8}),
    "GRL": (
        "GRL",
        {
            "embed_dim": 12,
            "depths": [2],
            "num_heads_window": [1],
            "num_heads_stripe": [1],
            "upscale": 2,
            "upsampler": "pixelshuffledirect",
        },
    ),
    "HAT": ("HAT", {"embed_dim": 12, "upsampler": "pixelshuffle", "squeeze_factor": 4, **_WINDOWS}),
    "MMRealSR": (
        "MMRRDBNet_test",
        {
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 8,
            "num_block": 1,
            "num_grow_ch": 4,
            "num_feats": [8, 8, 8, 8],
            "num_blocks": [1, 1, 1, 1],
        },
    ),
    "MoESR": ("MoESR", {"dim": 8, "n_blocks": 1, "n_block": 1, "scale": 2}),
    "MoSR": ("MoSR", {"dim": 8, "n_block": 1, "upscale": 2}),
    "OmniSR": ("OmniSR", {"num_feat": 16, "up_scale": 2}),
    "PLKSR": ("PLKSR", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2, "kernel_size": 5}),
    "RealPLKSR": ("RealPLKSR", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2, "kernel_size": 5}),
    "RCAN": ("RCAN", {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "scale": 2}),
    "RGT": ("RGT", {"embed_dim": 16, "depth": [2], "num_heads": [2]}),
    "UpCunet2x": ("UpCunet2x", {}),
    "SAFMN": ("SAFMN", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2}),
    "SAFMNBCIE": ("SAFMN_BCIE", {"dim": 8, "n_blocks": 1, "num_layers": 1}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}),
    "SeemoRe": ("SeemoRe", {"scale": 2, "num_experts": 2, "num_layers": 1, "embedding_dim": 16}),
    "SwiftSRGAN": ("Generator", {"num_channels": 8, "num_blocks": 1, "upscale_factor": 2}),
    "Swin2SR": ("Swin2SR", {"embed_dim": 12, "upsampler": "pixelshuffledirect", **_WINDOWS}),
    "SwinIR": ("SwinIR", {"embed_dim": 12, "upsampler": "nearest+conv", **_WINDOWS, "upscale": 4}),
}


def architecture(name: str) -> SpandrelNetwork:
    """A small network of an architecture, opened from its weights as a checkpoint of it would be."""
    kind, arguments = ARCHITECTURES[name]
    import_spandrel()
    folder = {"RealPLKSR": "PLKSR", "ESRGAN plus": "ESRGAN", "UpCunet2x": "RealCUGAN"}.get(name, name)
    torch.manual_seed(0)
    package = importlib.import_module(f"spandrel.architectures.{folder}")
    made: nn.Module = getattr(package, kind if name in ("RealPLKSR", "UpCunet2x") else folder)(**arguments)
    state: dict[str, Tensor] = {key: value.clone() for key, value in made.state_dict().items()}
    found = SpandrelNetwork.read(state, None)
    assert found is not None, f"spandrel does not know its own {name}"
    return SpandrelNetwork.build(*found)
