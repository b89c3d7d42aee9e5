"""Every error a user can cause, as one small tree.

On the command line it is one line and exit code 2, without a traceback. A message names the argument, its value, the
rule, and a way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class SrquantError(Exception):
    """Base of every error the project raises for a user's mistake or a broken input."""


class ArgumentError(SrquantError, ValueError):
    """A value breaks its rule."""


class UnknownNameError(ArgumentError):
    """There is no thing of that name.

    Args:
        what: The kind of thing asked for, as a noun ("method").
        name: The unknown name.
        known: All valid names; the nearest is suggested.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        self.what = what
        self.name = name
        super().__init__(f"unknown {what} {name!r}; {hint}known: {', '.join(names) or 'none'}")

    @property
    def needed(self) -> str:
        """What follows the name of a file that names the thing."""
        return f"needs the {self.what} {self.name!r}, which nothing here brings: install or import its package"


class ImageError(SrquantError):
    """An image or a folder of images cannot be used."""


class NetworkError(SrquantError):
    """Float weights cannot be opened as a network."""


class ModelFileError(SrquantError):
    """A saved model cannot be read."""


class ExportError(SrquantError):
    """An exported file does not do what the model does."""


class OutputError(SrquantError):
    """A file or folder cannot be written."""


class FetchError(SrquantError):
    """A file with a name cannot be fetched, or is not what it was."""


class MemoryLimitError(SrquantError, MemoryError):
    """The work does not fit into the memory of the device."""


class TrainingError(SrquantError):
    """A training run cannot go on."""


class FinetuningError(SrquantError):
    """Finetuning cannot go on."""


class MissingExtraError(SrquantError, ImportError):
    """An optional dependency is not installed.

    Args:
        need: What needs it ("opening this network").
        extra: The extra of this package that brings it.
    """

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(f"{need} needs an optional dependency; install it with: pip install 'srquant[{extra}]'")


class SaturationWarning(UserWarning):
    """Eight-bit products may saturate on this processor."""


class PluginWarning(UserWarning):
    """What an installed package brings cannot be used."""


class UnlikeWarning(UserWarning):
    """The float network's output does not look like its input: most likely something that weights do not tell is
    another than assumed, such as its value range.
    """


class NoGainWarning(UserWarning):
    """What was learned did not help on patches that were held out, and was taken back."""


class WeightsWarning(UserWarning):
    """A file holds several sets of weights, or more than a network's; the message says which were taken."""


class FolderWarning(UserWarning):
    """Something in a folder of pictures is not used, or is used in another way than its owner may expect."""


class RecordWarning(UserWarning):
    """A record of a bench cannot be read, and was passed over."""


class SuiteWarning(UserWarning):
    """Something of a paper's table is not at hand; the rest is computed."""


class NameWarning(UserWarning):
    """A file or folder here has the name of something that can be fetched, and is used in its place."""


class LossWarning(UserWarning):
    """Something that a picture file holds is not in what was made of it."""
