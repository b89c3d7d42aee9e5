"""A float network as it is quantized: the same function, with every product in a plain layer of its own."""

from __future__ import annotations

from typing import Literal, NamedTuple

from srquant.model.baking import Baked, bake
from srquant.model.folding import Fold, fold_batch_norm
from srquant.model.overwriting import stop_overwriting
from srquant.model.products import name_products
from srquant.model.survey import Survey, survey
from srquant.model.swapping import copy_network
from srquant.networks.base import SRNetwork

Norms = Literal["float", "folded"]
"""What becomes of batch normalisations."""


class Prepared(NamedTuple):
    """A network that computes what another does, and how it came about; its survey."""

    network: SRNetwork
    baked: tuple[Baked, ...]
    folds: tuple[Fold, ...]
    survey: Survey


def prepare(network: SRNetwork, norms: Norms = "folded") -> Prepared:
    """A copy of a float network that can be quantized layer by layer.

    Modules stop overwriting their inputs where they may, layers that make their weights anew in each pass become plain
    ones, products of activations become modules, and batch normalisations become part of the convolutions before them.

    Args:
        network: It is left as it is.
        norms: ``float`` leaves batch normalisations where they are.
    """
    plain = copy_network(network)
    stop_overwriting(plain)
    baked = bake(plain)
    name_products(plain)
    if norms == "float":
        return Prepared(plain, baked, (), survey(plain))
    folded = fold_batch_norm(plain)
    return Prepared(folded.network, baked, folded.folds, survey(folded.network, folded.watched))
