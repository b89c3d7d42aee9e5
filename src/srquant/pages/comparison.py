"""Models and the pictures they enlarged, before a page is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from srquant.model import Model
from srquant.pages.contenders import Contender
from srquant.pages.contents import Curve, Layers, Scene
from srquant.pages.layers import layers_of

HR, BICUBIC = "HR", "bicubic"
"""Titles of the pictures that no model made."""


@dataclass(frozen=True)
class Scored:
    """One picture, enlarged by all models.

    Args:
        name: Of its file.
        psnr: dB on luma, by title, against HR, or, where there is none, against the float network's result.
        ssim: Alike, BasicSR's dialect.
        against: What it was scored against: ``HR``, the float network's title, or empty if there was nothing.
        scene: The pictures.
    """

    name: str
    psnr: Mapping[str, float]
    ssim: Mapping[str, float]
    against: str
    scene: Scene


@dataclass(frozen=True)
class Comparison:
    """Models and the pictures they enlarged.

    Args:
        contenders: The float network first, if there is one.
        scored: Pictures.
        layers: One a quantized model.
        curves: One a model that learned.
        left_out: What pictures hold and are not shown, in words.
    """

    contenders: tuple[Contender, ...]
    scored: tuple[Scored, ...] = ()
    layers: tuple[Layers, ...] = ()
    curves: tuple[Curve, ...] = ()
    left_out: tuple[str, ...] = ()

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Of colours, by the titles of the models that are not float."""
        titles = [each.title for each in self.contenders if not each.is_float]
        return {title: number for number, title in enumerate(titles)}

    @cached_property
    def quantized(self) -> dict[str, Model]:
        """The quantized models that can be looked into, by title; of exported files nothing is known but their bits."""
        models = {each.title: each.model for each in self.contenders if not each.is_float}
        return {title: model for title, model in models.items() if isinstance(model, Model)}

    @cached_property
    def reference(self) -> Contender | None:
        """The float network, if there is exactly one."""
        floats = [each for each in self.contenders if each.is_float]
        return floats[0] if len(floats) == 1 else None

    def described_layers(self) -> tuple[Layers, ...]:
        """What the models' files say of their layers."""
        return tuple(layers_of(title, model) for title, model in self.quantized.items())

    def mean(self, title: str, score: str = "psnr", pictures: Sequence[Scored] | None = None) -> float | None:
        """Of a model over the pictures it has scores of; None where there are none."""
        values = [
            getattr(each, score)[title]
            for each in (self.scored if pictures is None else pictures)
            if title in getattr(each, score)
        ]
        return fmean(values) if values else None
