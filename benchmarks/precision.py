"""What ``precision="adaptive"`` gains where a tolerance allows it, and the error that results then have.

Each call is timed in turn as it is by default and under ``using(precision="adaptive", tol=...)``, on random float64
data (and float32, where bfloat16 may stand in) on the host and, where there is one, on a CUDA device. The error is the
relative L2 difference from what the default gives in float64. Needs a profile: run ``adaptive profile`` first.

    python -m benchmarks.precision [--json] [--save]
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

import adaptive_compute as ac
from adaptive_compute.core.errors import PrecisionWarning
from benchmarks.record import paired, publish, ratio, summary

ROUNDS = 9


class Case(NamedTuple):
    name: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    exact: Any
    tolerances: tuple[float, ...]


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 65536)) + 1j * rng.standard_normal((64, 65536))
    yield Case("64 FFTs of 65536, host", ac.fft, (x,), {}, None, (1e-5,))
    q, k, v = (rng.standard_normal((1, 8, 1024, 64)) for _ in range(3))
    yield Case("attention 8 x 1024 x 64, host", ac.attention, (q, k, v), {}, None, (1e-5, 3e-2))
    a, b = rng.random(1 << 22), rng.random(1 << 22)
    text = "sin(a)*exp(b) + sqrt(a)"
    yield Case("4M of " + text + ", host", ac.evaluate, (text,), {"a": a, "b": b}, None, (1e-5,))
    if not torch.cuda.is_available():
        return
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 16, 4096, 64, dtype=torch.float64, device="cuda") for _ in range(3))
    yield Case("attention 16 x 4096 x 64, cuda", ac.attention, (q, k, v), {}, None, (1e-5, 3e-2))
    exact, low = ac.attention(q, k, v), tuple(t.float() for t in (q, k, v))
    yield Case("the same in float32, cuda", ac.attention, low, {}, exact, (1e-5, 1e-2, 3e-2))
    z = torch.randn(64, 65536, dtype=torch.complex128, device="cuda")
    yield Case("64 FFTs of 65536, cuda", ac.fft, (z,), {}, None, (1e-5,))


def off(result: Any, exact: Any) -> float:
    """Return the relative L2 difference."""
    result, exact = (t.cpu().numpy() if torch.is_tensor(t) else t for t in (result, exact))
    return float(np.linalg.norm(result - exact) / np.linalg.norm(exact))


def synchronized(call: Any, device: bool) -> Any:
    """Return a call that ends when its work does."""

    def run() -> Any:
        result = call()
        if device:
            torch.cuda.synchronize()
        return result

    return run


def measured(case: Case, tol: float) -> dict[str, Any]:
    def own() -> Any:
        return case.function(*case.args, **case.kwargs)

    def adaptive() -> Any:
        with ac.using(precision="adaptive", tol=tol):
            return case.function(*case.args, **case.kwargs)

    with ac.using(precision="adaptive", tol=tol):
        chosen = ac.explain(case.function, *case.args, **case.kwargs).chosen
    device = chosen.device != "cpu"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        error = off(adaptive(), own() if case.exact is None else case.exact)
        samples = paired({"own": synchronized(own, device), "adaptive": synchronized(adaptive, device)}, ROUNDS)
    return {
        "case": case.name, "tol": tol, "chosen": chosen.shown, "device": chosen.device, "error": error,
        "own_error": None if case.exact is None else off(own(), case.exact), "predicted_error": chosen.error,
        "predicted_s": chosen.total_s, "own_s": summary(samples["own"]), "adaptive_s": summary(samples["adaptive"]),
        "gain": ratio(samples["own"], samples["adaptive"]),
        "turned_back": any(issubclass(w.category, PrecisionWarning) for w in said),
    }  # fmt: skip


def main() -> None:
    if not ac.dispatcher.profile.sections:
        raise SystemExit("there is no profile; run `adaptive profile` first")
    rows = []
    for case in cases():
        for tol in case.tolerances:
            row = measured(case, tol)
            rows.append(row)
            what = f"{row['chosen']} on {row['device']}, {row['gain']['median']:.2f}x, error {row['error']:.1e}"
            print(
                f"{row['case']:44s} tol {tol:.0e}: {what}{' (turned back)' if row['turned_back'] else ''}", flush=True
            )
            assert row["error"] <= tol, row
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    figures = {"rounds": ROUNDS, "gpu": gpu, "rows": rows}
    publish("precision", figures, "")


if __name__ == "__main__":
    main()
