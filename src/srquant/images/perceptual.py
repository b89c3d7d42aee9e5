"""LPIPS and DISTS: how different two images look to networks that were trained on photographs; lower is better.

Both are computed by torchmetrics (extra ``perceptual``), which brings the weights that their authors published, byte
for byte. The network that each looks through (AlexNet, VGG-16; torchvision's weights on ImageNet) is fetched by its
name and kept in the cache, see :mod:`srquant.fetching`. torchvision itself is not needed.

Conventions, as of the authors' code:

- images RGB, 8 bits, whole: other than for PSNR and SSIM **no border is cropped**, and nothing is turned into luma;
- ``lpips``: values in [−1, 1], net ``alex``, version 0.1, mean over the image. Source: Zhang et al. 2018, eq. 1;
- ``dists``: values in [0, 1], at the image's own size. Source: Ding et al. 2020, §3. Differs: the authors' code can
  shrink images to 256 pixels a side first; its own default, and ours, is not to.

Scores of other conventions (LPIPS with ``vgg``, DISTS of shrunk images) are other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srquant.fetching import fetch
from srquant.support.errors import ArgumentError, FetchError, MemoryLimitError, UnknownNameError, first_line
from srquant.support.extras import import_extra
from srquant.support.memory import available, memory_errors
from srquant.support.tensors import planes
from srquant.support.torchvision import make_importable

Score = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
"""Of an image against its reference, uint8 RGB, ``h w 3``."""
_NETS = "torchmetrics.functional.image"


@dataclass(frozen=True)
class PerceptualScore:
    """One of the two.

    Args:
        title: As papers write it.
        features: Name of the network that it looks through, in the catalogue.
        smallest: Pixels a side that this network needs.
        cost: Bytes of memory for each pixel, somewhat more than measured (peak of the process; 308 and 320 for LPIPS at
            1 and 4 MP, 1,788 and 1,574 for DISTS at 0.5 and 2 MP).
        layers: Makes this network without weights.
        make: Makes the score around it.
    """

    title: str
    features: str
    smallest: int
    cost: int
    layers: Callable[[], nn.Sequential]
    make: Callable[[nn.Sequential], nn.Module]


def further_scores(names: Iterable[str], device: torch.device | str = "cpu") -> dict[str, Score]:
    """Open scores by name; their weights are fetched once, and read once in a process.

    >>> lpips = further_scores(["lpips"])["lpips"]
    >>> lpips(output, reference)  # uint8 RGB, h w 3; lower is better

    Args:
        names: ``lpips``, ``dists``.
        device: Where to compute.

    Raises:
        UnknownNameError: There is no such score.
        MissingExtraError: The extra ``perceptual`` is not installed.
        FetchError: Weights cannot be fetched; the message says from where, and where to put them by hand. Or they are
            of another layout.
    """
    return {name: partial(_score, _opened(name, str(device)), _named(name), str(device)) for name in names}


def _named(name: str) -> PerceptualScore:
    if name not in SCORES:
        raise UnknownNameError("score", name, SCORES)
    return SCORES[name]


def _score(
    network: nn.Module,
    kind: PerceptualScore,
    device: str,
    image: NDArray[np.uint8],
    reference: NDArray[np.uint8],
) -> float:
    """The distance of two images.

    Raises:
        ArgumentError: The shapes differ, are not ``h w 3``, or are too small.
        MemoryLimitError: The images are too large for the memory that is free.
    """
    shape = reference.shape
    if image.shape != shape or len(shape) != 3 or shape[2] != 3:
        raise ArgumentError(f"images must both be h w 3; got {image.shape} and {shape}")
    if min(shape[:2]) < kind.smallest:
        raise ArgumentError(
            f"{kind.title} needs images of at least {kind.smallest}x{kind.smallest} pixels; got {shape[1]}x{shape[0]}"
        )
    needed, free = kind.cost * shape[0] * shape[1], available(torch.device(device))
    advice = f"{kind.title} of {shape[1]}x{shape[0]} pixels needs about {needed / 1e9:.1f} GB; score smaller images"
    if free is not None and needed > free:
        raise MemoryLimitError(f"{advice}, or free memory: {free / 1e9:.1f} GB are left")
    with memory_errors(advice), torch.inference_mode(), torch.autocast(torch.device(device).type, enabled=False):
        pair = [planes(each)[None].to(device, torch.float32) / 255 for each in (image, reference)]
        return float(network(*pair))


@cache
def _opened(name: str, device: str) -> nn.Module:
    kind = _named(name)
    make_importable()
    import_extra("torchmetrics", f"the score {name}", "perceptual")
    path = fetch(kind.features)
    with torch.random.fork_rng(devices=[]):  # first weights are drawn, and thrown away
        layers = kind.layers()
        _fill(layers, path)
        return kind.make(layers).to(device).eval().requires_grad_(False)


def _fill(layers: nn.Sequential, path: Path) -> None:
    """Take the features of a classifier's weights; the classifier itself is not needed.

    Raises:
        FetchError: They are not those of this network.
    """
    prefix = "features."
    try:
        state = cast(Mapping[str, Tensor], torch.load(path, map_location="cpu", weights_only=True, mmap=_zipped(path)))
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        layers.load_state_dict(own)
    except Exception as error:  # the reader raises whatever Python raises on a damaged file
        raise FetchError(f"{path} does not hold the weights of this network: {first_line(error)}") from error


def _zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _alexnet() -> nn.Sequential:
    """AlexNet's features, by torchvision's numbers. Source: Krizhevsky 2014 (one weird trick)."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )


def _vgg16() -> nn.Sequential:
    """VGG-16's features, by torchvision's numbers. Source: Simonyan and Zisserman 2015, table 1, column D."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def _lpips(features: nn.Sequential) -> nn.Module:
    module = import_extra(f"{_NETS}.lpips", "LPIPS", "perceptual")
    with _replaced(module, _get_tv_model_features=_always(features)):
        network = module._LPIPS(net="alex")
    return _Signed(network)


def _dists(features: nn.Sequential) -> nn.Module:
    module = import_extra(f"{_NETS}.dists", "DISTS", "perceptual")
    with _replaced(
        module,
        _TORCHVISION_AVAILABLE=True,
        VGG16_Weights=SimpleNamespace(DEFAULT=None),
        vgg16=_always(SimpleNamespace(features=features)),
    ):
        return module.DISTSNetwork()


class _Signed(nn.Module):
    """Gives a network images in [−1, 1] that it is given in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return self.network(2 * image - 1, 2 * reference - 1)


def _always(given: object) -> Callable[..., object]:
    def give(*_: object, **__: object) -> object:
        return given

    return give


@contextmanager
def _replaced(module: ModuleType, **names: Any) -> Generator[None]:
    """Give torchmetrics the features that are in the cache; it would have torchvision download its own elsewhere."""
    with patch.multiple(module, create=True, **names):
        yield


SCORES: Mapping[str, PerceptualScore] = {
    "lpips": PerceptualScore("LPIPS", "alexnet", 31, 350, _alexnet, _lpips),
    "dists": PerceptualScore("DISTS", "vgg16", 16, 1900, _vgg16, _dists),
}
"""By the names that ``--score`` takes."""
