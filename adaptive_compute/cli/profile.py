"""``adaptive profile``: measure this machine and keep what was found."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import AsJson, note, print_json, print_table

if TYPE_CHECKING:
    from ..core.compare import Change
    from ..core.measure import Progress
    from ..core.profile import Profile
    from .rows import Row


def command(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes; under 20 seconds on the CPU.")] = False,
    op: Annotated[
        list[str] | None, typer.Option("--op", metavar="NAME", help="Only this operation; may be repeated.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", metavar="NAME", help="Only this backend; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write here, not where calls look.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="SECONDS", help="Stay within about this time.")
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure only what no longer holds: new drivers, libraries, kernels.")
    ] = False,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="FILE", help="Measure nothing; say what differs from FILE.")
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", metavar="FILE", help="Measure nothing; take over what FILE says of this machine."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every kernel and link of this machine, print what is fastest, and save the profile.

    With --op or --backend, what is measured is merged into the profile that is there. Ctrl-C leaves that file as it is.
    """
    from ..core.dispatcher import dispatcher
    from ..core.errors import ArgumentError
    from ..core.measure import measure
    from ..core.profile import profile_path
    from . import kept
    from .rows import rows

    if budget is not None and not budget > 0:
        raise ArgumentError(f"--budget must be a positive number of seconds, got {budget:g}")
    for name in backend or ():
        dispatcher.registry.require(name)
    path = profile_path(str(output)) if output else dispatcher.profile_path()
    if bool(refresh) + bool(compare) + bool(merge) + bool(op or backend) > 1:
        raise ArgumentError("--refresh, --compare, --merge and a choice by --op or --backend exclude one another")
    if compare:
        return kept.compare(path, compare, as_json=as_json)
    check_writable(path)
    if merge:
        return kept.merge(path, merge, as_json=as_json)
    if refresh and path.exists():
        return kept.refresh(path, quick=quick, budget=budget, as_json=as_json)
    with progress() as report:
        profile = measure(
            dispatcher.registry, operations=op or None, backends=backend or None, quick=quick, budget=budget,
            report=report,
        )  # fmt: skip
    slower = keep(profile, path, merge=bool(op or backend))
    lines = rows(profile, dispatcher.registry)
    if as_json:
        print_json({**profile.as_dict(), "rows": [line._asdict() for line in lines], "path": str(path)})
    else:
        _print_rows(lines)
    for device, section in profile.sections.items():
        for way, link in (("to", section.up), ("from", section.down)):
            if link is not None:
                note(f"{way} {device}: {link.latency * 1e6:.0f} us and {link.bandwidth / 1e9:.1f} GB/s; "
                     f"{link.loaded:.2f}x as long while the host copies memory")  # fmt: skip
    for operation, kernel, device, reason in rejected(profile):
        note(f"wrong: {operation}/{kernel} on {device}: {reason}; it will not be used")
    for change in slower:
        note(f"{kept.told(change)}; `adaptive profile --compare` with a copy of the earlier file says more")
    if profile.facts.get("left_out"):
        note(f"{profile.facts['left_out']} points were left out for want of time; a larger --budget measures them")
    for device in profile.facts.get("skipped") or ():
        name = dispatcher.registry.backend_of(device).name
        note(f"{device} was not measured: it is a software driver; `adaptive profile --backend {name}` measures it")
    note(f"measured in {profile.facts['seconds']} s, saved to {path}")


def check_writable(path: Path) -> None:
    """Raise ProfileError where a profile could not be written, before the time is spent on measuring one."""
    from ..core.errors import ProfileError

    try:
        if path.is_dir():
            raise ProfileError(f"cannot write {path}: it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        why = error.strerror or error
        raise ProfileError(f"cannot write {path}: {why}; name another file with --output or ADAPTIVE_PROFILE") from None


def keep(profile: Profile, path: Path, *, merge: bool) -> list[Change]:
    """Save a profile, and return the kernels that have become slower than the file said they were.

    ``merge`` keeps what the file holds besides, where it is a profile and still holds.
    """
    from ..core.compare import compared
    from ..core.errors import MissingProfileError, ProfileError
    from ..core.profile import Profile, locked

    slower: list[Change] = []
    with locked(path):
        try:
            old = Profile.load(path)
        except MissingProfileError:
            pass
        except ProfileError as error:
            note(f"replaced: {error}")
        else:
            slower = compared(profile, old).slower
            if merge:
                _tell_dropped(old, profile)
                old.merge(profile)
                profile = old
        profile.save(path)
    return slower


def _tell_dropped(old: Profile, new: Profile) -> None:
    """Say what a merge drops, because it was measured on what is not the same machine any more."""
    for device, section in new.sections.items():
        before = old.sections.get(device)
        lost = sorted(set(before.kernels) - set(section.kernels)) if before else []
        if before and before.validators != section.validators and lost:
            note(f"the machine has changed: earlier measurements on {device} are dropped ({', '.join(lost)}); "
                 "`adaptive profile` measures everything again")  # fmt: skip


def rejected(profile: Profile) -> Iterator[tuple[str, str, str, str]]:
    """Yield operation, kernel, device and reason of every kernel that was found wrong."""
    for device, section in profile.sections.items():
        for operation, kernels in section.rejected.items():
            for kernel, reason in kernels.items():
                yield operation, kernel, device, reason


@contextlib.contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar on stderr, where that is a terminal; yields what to report to."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)

        def report(step: Any) -> None:
            bar.update(task, completed=step.done, total=step.total, description=step.what)

        yield report


def _print_rows(lines: list[Row]) -> None:
    from ..core.router import show_seconds

    columns = ("operation", "size", "kernel", "time", "rate", "runner-up", "error")
    print_table(
        columns,
        [
            (
                row.operation,
                row.request,
                row.kernel if row.device == "cpu" else f"{row.kernel} on {row.device}",
                show_seconds(row.seconds),
                f"{row.rate:.3g} {row.unit}",
                "-" if row.runner_up is None else f"{row.runner_up} {row.runner_up_ratio or 0:.2f}x",
                "unknown" if row.error is None else f"{row.error:.1e}",
            )
            for row in lines
        ],
        right=("time", "rate"),
    )
