"""One bench for all: networks × methods × bits, each a cell with a record of its own, on one machine or many."""

from __future__ import annotations

from srquant.bench.records import CellRecord as CellRecord
from srquant.bench.records import DataScores as DataScores
from srquant.bench.records import NetworkRecord as NetworkRecord
from srquant.bench.records import Runs as Runs
from srquant.bench.records import read_records as read_records
from srquant.bench.running import run as run
from srquant.bench.showing import show as show
from srquant.bench.suites import SUITES as SUITES
