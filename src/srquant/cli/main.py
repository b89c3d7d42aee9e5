"""The ``srquant`` command."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from srquant.cli.analyze import analyze
from srquant.cli.bench import bench
from srquant.cli.compare import compare
from srquant.cli.demo import demo
from srquant.cli.evaluate import evaluate
from srquant.cli.export import export
from srquant.cli.fetch import fetch
from srquant.cli.inspect import inspect
from srquant.cli.methods import methods
from srquant.cli.quantize import quantize
from srquant.cli.report import report
from srquant.cli.train import train
from srquant.cli.upscale import upscale
from srquant.support.errors import SrquantError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of the shell."""

app = typer.Typer(
    name="srquant",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make image super-resolution networks small and fast: 8 to 2 bits, in minutes, without ground truth.",
)
for command in (quantize, evaluate, upscale, export, compare, report, inspect, methods, train, fetch, demo):
    app.command()(command)
app.add_typer(analyze, name="analyze")
app.add_typer(bench, name="bench")


def main() -> None:
    """Run a command; a user's mistake is one line and exit code 2."""
    try:
        warnings.showwarning = _one_line
        _prepare()
        app(standalone_mode=True)
    except SrquantError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:  # the command-line library has caught Ctrl-C
            print("interrupted; no half-written file is left", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _one_line(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _prepare() -> None:
    if len(sys.argv) > 1 and not {"-h", "--help"} & set(sys.argv):
        from srquant.support.memory import keep_freed_memory

        keep_freed_memory()
