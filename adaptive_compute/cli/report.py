"""``adaptive report``: what was measured here, as one HTML page to look at and to show."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import AsJson, note, print_json

if TYPE_CHECKING:
    from ..core.profile import Profile

DEFAULT = Path("adaptive-report.html")


def command(
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help=f"Write here. Default: {DEFAULT} in this folder.")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page: machine, links, crossovers, accuracy, regret, health of the profile.

    With --json the same figures go to stdout, and a page is written only where --output or --open asks for one.
    """
    from ..report.collect import collect

    path, profile = profile_in_use()
    data = collect(_registry(), profile, path)
    if as_json:
        print_json(data)
    if not as_json or output is not None or show:
        written = write(data, DEFAULT if output is None else output.expanduser())
        note(f"written to {written}")
        if show and not webbrowser.open(written.absolute().as_uri()):
            note("no browser could be opened here; open the file yourself")


def _registry() -> Any:
    from ..core.dispatcher import dispatcher

    return dispatcher.registry


def profile_in_use() -> tuple[Path, Profile]:
    """Return the profile's file and the profile, checked against this machine; raises where there is none."""
    from ..core.dispatcher import dispatcher
    from ..core.errors import MissingProfileError
    from ..core.profile import Profile

    path = dispatcher.profile_path()
    try:
        profile = Profile.load(path)
    except MissingProfileError:
        raise MissingProfileError(f"there is no profile to report at {path}; `adaptive profile` measures one") from None
    registry = dispatcher.registry
    here = set(registry.devices())
    profile.validate({d: registry.backend_of(d).validators(d) for d in profile.sections if d in here})
    return path, profile


def write(data: dict[str, Any], path: Path) -> Path:
    """Write the page for a report's figures atomically, and return where."""
    from ..core.errors import AdaptiveError, ArgumentError
    from ..core.files import write_atomically
    from ..report.page import page

    if path.is_dir():
        raise ArgumentError(f"--output {path} is a folder; name a file, such as {path / DEFAULT}")
    text = page(data).encode()
    try:
        write_atomically(path, lambda file: file.write(text))
    except OSError as error:
        raise AdaptiveError(
            f"cannot write {path}: {error.strerror or error}; name another file with --output"
        ) from None
    return path
