"""What a network is while it is quantized: its multiplications, survey, folding, swapping, layers, record and file."""

from __future__ import annotations

from srquant.model.model import Layer as Layer
from srquant.model.model import Model as Model
from srquant.model.model import Sizes as Sizes
from srquant.model.model import load as load
