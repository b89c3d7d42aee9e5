"""Batch normalisation over a batch that several processes divide among them.

PyTorch's own ``SyncBatchNorm`` does it on GPUs only.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as reductions

from srquant.support.tensors import modules_of

_N = TypeVar("_N", bound=nn.BatchNorm2d)


class SharedBatchNorm(nn.BatchNorm2d):
    """Normalises by mean and variance of the whole batch, of which each process of the group has an equal part.

    With x̄ and s² over batch, height and width of all parts: ``(x − x̄) / √(s² + ε) · weight + bias``. Gradients flow
    through x̄ and s² to the parts of all processes. In evaluation mode it is a plain batch normalisation.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Of ``n c h w``, the part of this process."""
        if not self.training:
            return super().forward(input)
        processes, axes = dist.get_world_size(), (0, 2, 3)
        values = input.float()
        mean = _sum(values.mean(axes)) / processes
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().mean(axes)) / processes
        self._track(mean.detach(), variance.detach(), processes * input.numel() // input.shape[1])
        made = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            made = made * self.weight[:, None, None] + self.bias[:, None, None]
        return made.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics as PyTorch does: the variance is that of a sample of ``count`` values."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)


def share_norms(network: nn.Module) -> None:
    """Let the batch normalisations of a network be those of the whole batch, in place; they keep their weights."""
    _replace(network, nn.BatchNorm2d, SharedBatchNorm)


def own_norms(network: nn.Module) -> None:
    """Undo :func:`share_norms`."""
    _replace(network, SharedBatchNorm, nn.BatchNorm2d)


def _replace(network: nn.Module, old: type[nn.BatchNorm2d], new: type[_N]) -> None:
    for name, module in modules_of(network).items():
        if isinstance(module, nn.BatchNorm2d) and type(module) is old:
            made = new(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
            made.weight, made.bias = module.weight, module.bias
            made.running_mean, made.running_var = module.running_mean, module.running_var
            made.num_batches_tracked = module.num_batches_tracked
            made.train(module.training)
            network.set_submodule(name, made)


def _sum(values: Tensor) -> Tensor:
    """Over all processes; the gradient of each part is the sum of those in all processes."""
    return cast(Tensor, reductions.all_reduce(values))
