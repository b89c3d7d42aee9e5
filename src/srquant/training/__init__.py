"""Training float networks."""

from __future__ import annotations

from srquant.training.photographs import Photographs as Photographs
from srquant.training.trainer import Point as Point
from srquant.training.trainer import Recipe as Recipe
from srquant.training.trainer import Trained as Trained
from srquant.training.trainer import TrainingConfig as TrainingConfig
from srquant.training.trainer import train as train
