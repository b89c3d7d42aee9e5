"""Networks and pictures by name, from their original places.

The way of a name::

    text ── resolve ──> a file or folder here, if there is one ──────────────────────────────> path
                  └──> Entry of the catalogue ── fetch ──> cached, and as it was written down ──> path
                                                 └──> download ── check ── unpack ── Receipt ──> path

:func:`resolve` is called where paths are opened (:func:`srquant.load`, :func:`srquant.images.find_pairs`, calibration
patches, photographs, pictures to enlarge) and nowhere else, so that names work in every command.
"""

from __future__ import annotations

from srquant.fetching.fetching import fetch as fetch
from srquant.fetching.names import resolve as resolve
