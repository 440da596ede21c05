"""``adaptive doctor``: what works here, what does not, why, and the command that mends it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from .kept import lags, told_lag
from .output import AsJson, print_json

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..core.registry import Registry


def command(as_json: AsJson = False) -> None:
    """Check every backend, library and the profile. Exits with 1 if no backend works or the profile is damaged."""
    report = examine()
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if not any(backend["available"] for backend in report["backends"]):
        print("adaptive: no backend works", file=sys.stderr)
        raise typer.Exit(1)
    if report["profile"]["state"] == "damaged":
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Return everything that doctor tells, as plain data."""
    from .. import __version__
    from ..core.dispatcher import dispatcher

    registry = dispatcher.registry
    return {
        "version": __version__,
        "backends": [_backend(backend, registry) for backend in registry.backends().values()],
        "failed_entry_points": registry.failed(),
        "missing_libraries": _missing(registry),
        "profile": _profile(registry),
        "set_aside": [
            {"operation": operation, "kernel": kernel, "device": device, "reason": reason}
            for (operation, kernel, device), reason in dispatcher.router.set_aside.items()
        ],
    }


def _backend(backend: Backend, registry: Registry) -> dict[str, Any]:
    available = backend.available()
    if available is not True:
        why = {"available": False, "reason": str(available), "remedy": backend.remedy(), "steps": list(backend.steps())}
        return {"name": backend.name, **why, "devices": {}}
    devices = {}
    for device in backend.devices():
        kernels = {
            operation: [kernel.name for kernel in registry.kernels(operation) if kernel.device == device]
            for operation in registry.operations()
        }
        devices[device] = {
            "facts": backend.facts(device),
            "memory": backend.memory(device),
            "kernels": {operation: names for operation, names in kernels.items() if names},
        }
    return {"name": backend.name, "available": True, "reason": None, "remedy": None, "steps": [], "devices": devices}


def _missing(registry: Registry) -> list[dict[str, str]]:
    """Return the kernels that refuse every sample, at least one of them because a library is not installed."""
    from ..core.measure import relocated
    from ..core.operations import operations

    missing = []
    for name, operation in operations().items():
        requests = list(operation.samples(quick=True))
        for kernel in registry.kernels(name):
            why = None
            for request in requests:
                answer = kernel.supports(relocated(request, kernel))
                if answer is True:
                    break
                if "not installed" in str(answer):
                    why = str(answer)
            else:
                if why:
                    missing.append({"operation": name, "kernel": kernel.name, "device": kernel.device, "reason": why})
    return missing


def _profile(registry: Registry) -> dict[str, Any]:
    from ..core.dispatcher import dispatcher
    from ..core.errors import MissingProfileError, ProfileError
    from ..core.operations import operations
    from ..core.profile import Profile
    from .profile import rejected

    report: dict[str, Any] = {
        "path": None, "state": "missing", "reason": None, "remedy": "adaptive profile",
        "facts": {}, "stale": {}, "rejected": [], "unmeasured": [], "far_behind": [],
    }  # fmt: skip
    try:
        path = dispatcher.profile_path()
        report["path"] = str(path)
        profile = Profile.load(path)
    except MissingProfileError:
        return report
    except ProfileError as error:
        return {**report, "state": "damaged", "reason": str(error)}
    profile.validate({device: registry.backend_of(device).validators(device) for device in registry.devices()})
    report["facts"], report["stale"] = profile.facts, profile.stale
    report["rejected"] = [
        {"operation": operation, "kernel": kernel, "device": device, "reason": reason}
        for operation, kernel, device, reason in rejected(profile)
    ]
    report["far_behind"] = lags(profile)
    report["unmeasured"] = [
        f"{operation} on {device}"
        for device in registry.devices()
        for operation in operations()
        if any(kernel.device == device for kernel in registry.kernels(operation))
        and not (device in profile.sections and profile.sections[device].kernels.get(operation))
    ]
    if not profile.sections:
        report["state"] = "stale"
    elif profile.stale or report["unmeasured"]:
        report["state"] = "partly usable"
    else:
        report.update(state="ok", remedy=None)
    return report


def _print_report(report: dict[str, Any]) -> None:
    print(f"adaptive-compute {report['version']}")
    for backend in report["backends"]:
        _print_backend(backend)
    for name, reason in report["failed_entry_points"].items():
        print(f"\nbackend {name}: its entry point could not be loaded: {reason}")
    if report["missing_libraries"]:
        print("\nkernels without their library:")
    for entry in report["missing_libraries"]:
        print(f"  {entry['operation']}/{entry['kernel']} on {entry['device']}: {entry['reason']}")
    _print_profile(report["profile"])
    for entry in report["set_aside"]:
        print(f"\nset aside: {entry['operation']}/{entry['kernel']} on {entry['device']}: {entry['reason']}")


def _print_backend(backend: dict[str, Any]) -> None:
    if not backend["available"]:
        print(f"\nbackend {backend['name']}: not available: {backend['reason']}")
        if backend["remedy"]:
            print(f"  to mend it: {backend['remedy']}")
        if backend["steps"]:
            print("  which runs:")
        for step in backend["steps"]:
            print(f"    {step}")
        return
    print(f"\nbackend {backend['name']}: available")
    for device, entry in backend["devices"].items():
        memory = f", {entry['memory'] / 2**30:.1f} GiB of memory" if entry["memory"] else ""
        print(f"  {device}{memory}")
        for name, value in entry["facts"].items():
            print(f"    {name}: {value}")
        for operation, kernels in entry["kernels"].items():
            print(f"    {operation} kernels: {', '.join(kernels)}")


def _print_profile(profile: dict[str, Any]) -> None:
    print(f"\nprofile {profile['path']}: {profile['state']}")
    if profile["reason"]:
        print(f"  {profile['reason']}")
    for name, value in profile["facts"].items():
        print(f"  {name}: {value}")
    for device, reason in profile["stale"].items():
        print(f"  set aside: {device}: {reason}")
    if profile["unmeasured"] and profile["state"] != "stale":
        print(f"  not measured: {', '.join(profile['unmeasured'])}")
    for entry in profile["rejected"]:
        print(f"  wrong: {entry['operation']}/{entry['kernel']} on {entry['device']}: {entry['reason']}")
    for entry in profile["far_behind"]:
        print(f"  {told_lag(entry)}")
    if profile["remedy"]:
        print(f"  to mend it: {profile['remedy']}")
