"""Fill the tables of a Markdown file from records: python tools/fill_tables.py docs/results.md.

A table stands between ``<!-- table: COMMAND -->`` and ``<!-- end -->``; the command is ``srquant bench show …`` or
``python -m benchmarks.NAME --table RECORD``, run in the root of the repository, and what it prints replaces what is
there. With ``--check`` nothing is written, and the exit code is 1 if a table is another than its records give.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from srquant.support.errors import ArgumentError
from srquant.support.files import replacing

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(<!-- table: (?P<command>[^\n]*) -->\n).*?(<!-- end -->)", re.DOTALL)
_PROGRAMS = {("srquant", "bench", "show"): ("-m", "srquant.cli", "bench", "show")}
"""What a command may begin with, and what is run for it; programs of ``benchmarks`` besides."""


def filled(text: str) -> str:
    """The text, with each table as its command prints it.

    Raises:
        ArgumentError: A command is none of those that print tables, or fails.
    """
    return _BLOCK.sub(lambda block: f"{block[1]}{printed(block['command'])}\n{block[3]}", text)


def printed(command: str) -> str:
    """What a command prints.

    Raises:
        ArgumentError: It is none of those that print tables, or fails.
    """
    words = tuple(shlex.split(command))
    program = _PROGRAMS.get(words[:3])
    if program is None and words[:2] == ("python", "-m") and words[2:3] and words[2].startswith("benchmarks."):
        program = ("-m", words[2])
    if program is None:
        raise ArgumentError(f"{command!r} prints no table; write srquant bench show … or python -m benchmarks.NAME …")
    done = subprocess.run(
        [sys.executable, *program, *words[3:]], cwd=ROOT, check=False, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode != 0:
        raise ArgumentError(f"{command!r} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    """Fill a file, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    before = options.file.read_text()
    after = filled(before)
    if options.check:
        return int(after != before)
    if after != before:
        with replacing(options.file) as temporary:
            temporary.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
