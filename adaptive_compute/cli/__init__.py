"""The command line: ``adaptive profile | doctor | explain | report | bench | settings | zeta``. One file a command.

Exit codes: 0 ok, 1 failure, 2 wrong usage. Results go to stdout; errors, warnings and progress go to stderr.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from .. import __version__
from ..core import settings as _settings
from ..core.errors import AdaptiveError, ArgumentError, DtypeError
from . import bench, doctor, explain, profile, report, settings, zeta

app = typer.Typer(name="adaptive", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("profile")(profile.command)
app.command("doctor")(doctor.command)
app.command("explain")(explain.command)
app.command("report")(report.command)
app.add_typer(bench.app, name="bench")
app.command("settings")(settings.command)
app.add_typer(zeta.app, name="zeta")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"adaptive-compute {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Measure this machine, see where calls run, and find out why."""
    backend = _settings.base().backend  # a bad ADAPTIVE_... variable is told here, whichever command was asked for
    if backend is not None:
        from ..core.registry import registry

        if backend not in registry.backends():
            raise ArgumentError(
                f"ADAPTIVE_BACKEND={backend!r} is not known; known backends: {', '.join(registry.backends())}"
            )


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    print(f"adaptive: warning: {message}", file=sys.stderr)


def main() -> None:
    """Run the ``adaptive`` command and exit with its code."""
    warnings.showwarning = _show_warning
    try:
        app()
    except AdaptiveError as error:
        print(f"adaptive: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, (ArgumentError, DtypeError)) else 1)
