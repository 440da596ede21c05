"""Each part of the CUDA backend once, with what it said where it failed: the first thing to run on a new machine.

    python -m benchmarks.cuda_smoke [PART ...]

Every part runs in a process of its own, a few side by side, and is ended at its time limit with where it was.
"""

from __future__ import annotations

import faulthandler
import itertools
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

import adaptive_compute as ac
from adaptive_compute.core.errors import AdaptiveWarning
from adaptive_compute.core.masks import Blocks, Causal, Window
from adaptive_compute.core.measure import relocated
from adaptive_compute.core.operations import operations
from adaptive_compute.core.operations.attention_rule import BACKWARD
from adaptive_compute.core.operations.attention_rule import FAMILY as ATTENTION
from adaptive_compute.core.registry import registry

failures = 0


def check(name: str, action: Callable[[], object]) -> None:
    """Run one check and print what came of it."""
    global failures
    try:
        print(f"{name}: {action()}", flush=True)
    except Exception:
        failures += 1
        print(f"{name}: FAILED\n{traceback.format_exc(limit=-6)}", flush=True)


def facts() -> object:
    backend = registry.require("cuda")
    return [backend.facts(device) for device in backend.devices()]


def links() -> str:
    rng = np.random.default_rng(0)
    for nbytes in (0, 8, 1 << 12, 1 << 20, (1 << 21) + 24, 50_000_008, 1 << 28):
        host = rng.integers(0, 1 << 60, nbytes // 8)
        there = ac.to(host, "cuda")
        assert ac.device_of(there) == "cuda:0"
        assert np.array_equal(ac.to(there, "cpu"), host), nbytes
    turned = rng.standard_normal((3000, 2000)).T
    assert np.array_equal(ac.to(ac.to(turned, "cuda"), "cpu"), turned)
    return str(ac.transfers(reset=True)["transfers"])


def half() -> str:
    import torch

    x = torch.randn(1 << 22).to(torch.bfloat16)
    back = ac.to(ac.to(x, "cuda"), "cpu")
    assert torch.equal(back, x)
    with ac.using("cuda"):
        y = ac.evaluate("2*x", x=x)
    assert y.dtype is torch.bfloat16
    assert y.device.type == "cpu"
    assert torch.equal(y, 2 * x)
    return "bfloat16 there and back"


def cupy_arrays() -> str:
    import cupy
    import torch

    x = cupy.random.rand(1000, 64).astype(cupy.complex64)
    y = ac.fft(x)
    assert type(y) is cupy.ndarray
    assert float(abs(y - cupy.fft.fft(x)).max()) < 1e-4
    z = ac.evaluate("a*b + 1", a=torch.ones(64, device="cuda"), b=x.real)
    assert isinstance(z, torch.Tensor)
    assert z.is_cuda
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        total = ac.sum(cupy.full(1 << 24, 2.0, cupy.float32))
    stream.synchronize()
    assert float(total) == 2.0**25
    return "in place, on the caller's stream"


def scalars() -> str:
    import torch

    a = torch.arange(6.0, device="cuda").reshape(2, 3)
    for kernel in ("fused", "torch"):
        with ac.using(kernel=kernel):
            assert torch.allclose(ac.evaluate("s*a + t + 1.5", s=2.0, a=a, t=np.float32(0.5)), 2 * a + 2)
            assert torch.equal(ac.evaluate("a + b", a=a, b=a[:, :1]), a + a[:, :1])
            assert torch.equal(ac.evaluate("a + b", a=a.T, b=a[0, :2]), a.T + a[0, :2])
    return "numbers stay on the host"


def gradient() -> str:
    import torch

    q, k, v = (torch.randn(2, 4, 64, 32, device="cuda", dtype=torch.float64, requires_grad=True) for _ in range(3))
    ac.attention(q, k, v, mask=Window(9)).square().sum().backward()
    x = torch.randn(64, device="cuda", dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(ac.fft, (x,))
    return f"{float(q.grad.norm()):.3g}"


def every_kernel(name: str) -> str:
    """Run some random requests of an operation on each kernel and compare with the reference."""
    family, rng = operations()[name], np.random.default_rng(3)
    ran: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for request in (family.held_out(rng) for _ in range(25)):
        if request.operation.work(request).bytes > 1 << 25:
            continue
        arrays = family.arrays(request, rng)
        compare(registry.kernels(name), request, arrays, ran, reasons)
    lines = [f"  {name}/{k}: {len(e)} runs, worst {max(e):.2f} of the tolerance" for k, e in ran.items()]
    lines += [f"  {name}/{k}: {reason}" for k, reason in reasons.items()]
    return "\n" + "\n".join(lines)


def compare(kernels, request, arrays, ran, reasons) -> None:
    for kernel in kernels:
        if not kernel.device.startswith("cuda"):
            continue
        moved = relocated(request, kernel)
        supported = kernel.supports(moved)
        if supported is not True:
            reasons.setdefault(f"{kernel.name} refuses", str(supported))
            continue
        backend = registry.backend_of(kernel.device)
        try:
            native = [None if a is None else backend.upload(a, kernel.device) for a in arrays]
            result = kernel.plan(moved).run(*native)
            down = backend.download
            host = tuple(down(r) for r in result) if isinstance(result, tuple) else down(result)
            error = request.operation.error(request, arrays, host)
        except Exception as failure:
            reasons[f"{kernel.name} FAILED"] = f"{type(failure).__name__}: {str(failure)[:300]} at {request!r}"
            continue
        ran.setdefault(kernel.name, []).append(error / max(request.operation.tolerance(request), 1e-30))
        if error > request.operation.tolerance(request):
            reasons[f"{kernel.name} INEXACT"] = f"{error:.2e} at {request!r}"


def attention() -> str:
    """Half precisions, which the router's own samples leave out, and masks of every kind."""
    lines = []
    rng = np.random.default_rng(0)
    layout = rng.random((8, 8)) < 0.4
    np.fill_diagonal(layout, True)
    for operation, mask, dtype in itertools.product(
        (ATTENTION, BACKWARD), (None, Causal(), Window(40), Blocks(layout, 64)), ("float16", "float32")
    ):
        request = operation.sample(4, 512, 512, 64, dtype, mask)
        ran: dict[str, list[float]] = {}
        reasons: dict[str, str] = {}
        compare(registry.kernels(operation.name), request, operation.arrays(request, rng), ran, reasons)
        shown = ", ".join(f"{k} {e[0]:.2f}" for k, e in ran.items())
        bad = {k: v for k, v in reasons.items() if "refuses" not in k}
        lines.append(f"  {operation.name} {dtype} {mask!r}: {shown} {bad or ''}")
    return "\n" + "\n".join(lines)


def gqa() -> str:
    rng = np.random.default_rng(0)
    lines = []
    for operation in (ATTENTION, BACKWARD):
        request = operation._request((2, 8, 96, 64), (2, 2, 96, 64), "float16", Causal())
        ran: dict[str, list[float]] = {}
        reasons: dict[str, str] = {}
        compare(registry.kernels(operation.name), request, operation.arrays(request, rng), ran, reasons)
        lines.append(f"{operation.name}: {ran} {reasons}")
    return " | ".join(lines)


def memory_runs_out() -> str:
    import torch

    before = torch.cuda.memory_reserved()
    _, total = torch.cuda.mem_get_info()
    x = torch.empty(int(total * 0.6) // 8, dtype=torch.complex64, device="cuda")
    try:
        ac.fft(x)
        said = "no error"
    except MemoryError as error:
        said = f"{type(error).__name__}: {str(error)[:120]}"
    del x
    registry.require("cuda").release()
    assert ac.fft(torch.ones(8, device="cuda")).sum().item() == 8
    return f"{said}; reserved {before >> 20} MiB before, {torch.cuda.memory_reserved() >> 20} MiB after"


def explained() -> str:
    x = np.ones((64, 1024), np.complex64)
    return str(ac.explain(ac.fft, x))


def many_calls() -> str:
    """Ten thousand mixed calls, after which no more memory may be in use than after the first two thousand."""
    import torch

    rng = np.random.default_rng(0)
    x = torch.randn(64, 512, dtype=torch.complex64, device="cuda")
    a = torch.rand(3, 4096, device="cuda")
    q = torch.randn(2, 4, 128, 64, dtype=torch.float16, device="cuda")
    host = rng.standard_normal((8, 256))
    calls = (
        lambda n: ac.fft(x[:n]),
        lambda n: ac.evaluate("a*b + sin(c)", a=a[0, : 8 * n], b=a[1, : 8 * n], c=a[2, : 8 * n]),
        lambda n: ac.sum(a[:, :n], axis=1),
        lambda n: ac.attention(q[..., :n, :], q, q),
        lambda n: ac.to(ac.to(host[: n % 8 + 1], "cuda"), "cpu"),
        lambda n: ac.scatter_add(a[0, :n], np.arange(n) % 7, 7),
    )
    seen = []
    for number in range(10_000):
        calls[number % len(calls)](int(rng.integers(1, 9)) * 8)
        if number in (1_999, 9_999):
            torch.cuda.synchronize()
            seen.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert seen[1][0] <= seen[0][0] + (1 << 20), seen
    assert seen[1][1] <= seen[0][1] + (4 << 20), seen
    return f"allocated and reserved bytes after 2,000 and 10,000 calls: {seen}"


ACTIONS: dict[str, Callable[[], object]] = {
    "facts": facts, "links": links, "half": half, "scalars": scalars, "cupy_arrays": cupy_arrays, "gradient": gradient,
    **{f"kernels-{name}": partial(every_kernel, name) for name in operations() if name != "vmap"},
    "attention": attention, "gqa": gqa, "explained": explained,
}  # fmt: skip
ALONE: dict[str, Callable[[], object]] = {"many_calls": many_calls, "memory_runs_out": memory_runs_out}
LIMIT = 45  # seconds for a part
TOGETHER = 6  # parts at a time


def alone(name: str) -> tuple[bool, str]:
    """Run a part in a process of its own and return whether it went well, and what it said."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cuda_smoke", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = done.stdout if done.returncode in (0, 1) else f"{name}: FAILED, exit status {done.returncode}\n{done.stdout}"
    return done.returncode == 0, said[-4000:]


def main() -> None:
    """Run the parts that the command line names in this process, or all, each in its own."""
    every = {**ACTIONS, **ALONE}
    if sys.argv[1:]:
        warnings.simplefilter("ignore", AdaptiveWarning)
        for name in sys.argv[1:]:
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            check(name, every[name])
        raise SystemExit(1 if failures else 0)
    bad = 0
    for names, workers in ((ACTIONS, TOGETHER), (ALONE, 1)):
        with ThreadPoolExecutor(workers) as pool:
            for well, said in pool.map(alone, names):
                bad += not well
                print(said, end="", flush=True)
    print(f"{len(every) - bad} of {len(every)} parts went well")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
