"""The photographs that ship with the package; see ``ATTRIBUTION.md`` beside them."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
CALIBRATION = _HERE / "calibration"
"""Four low-resolution pictures, as for a network of ×4."""
PAIRS = _HERE / "test"
"""Two benchmark pairs of ×4: folders ``HR`` and ``LR``."""
LOW_RESOLUTION = PAIRS / "LR" / "astronaut.png"
"""One low-resolution picture, 80×80."""
