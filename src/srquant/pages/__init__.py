"""Pages to look at: one file each, that needs no network."""

from __future__ import annotations

from srquant.pages.comparing import compare as compare
from srquant.pages.reporting import report as report
