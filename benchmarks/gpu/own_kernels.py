"""This library's own CUDA kernels at awkward sizes, once each: what compute-sanitizer watches.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python -m benchmarks.gpu.own_kernels

Without torch's cache every tensor is an allocation of its own, so that a read or write beyond one is seen. Results are
checked loosely; the conformance suite checks them well.
"""

from __future__ import annotations

import itertools
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

import adaptive_compute as ac
from adaptive_compute.core.errors import AdaptiveWarning

DEVICE = "cuda:0"


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Raise where the relative L2 distance is too large."""
    distance = torch.linalg.norm((found.double() - expected.double()).flatten())
    assert distance <= tolerance * torch.linalg.norm(expected.double().flatten()) + 1e-30, float(distance)


def expressions() -> None:
    for n in (1, 3, 255, 1025, 4099):
        a, b = (torch.rand(n, device=DEVICE) for _ in range(2))
        with ac.using(kernel="fused", device=DEVICE):
            close(ac.evaluate("a*b + sin(a)", a=a, b=b), a * b + torch.sin(a), 1e-6)
            close(ac.evaluate("a*2", a=a.half()), a.half() * 2, 1e-3)
    for rows, columns in ((7, 33), (5, 64), (1, 1)):
        m, row, column = torch.rand(rows, columns), torch.rand(columns), torch.rand(rows, 1)
        m, row, column = (t.to(DEVICE) for t in (m, row, column))
        with ac.using(kernel="fused", device=DEVICE):
            for x in (m, m.t().contiguous().t(), torch.cat([m, m], 1)[:, 1 : columns + 1]):
                close(ac.evaluate("m*r + c", m=x, r=row, c=column), x * row + column, 1e-6)


def norms() -> None:
    for shape, axis in itertools.product(((1031, 1027), (3, 400_009), (1_200_001, 1), (17, 129, 513)), (0, 1, -1)):
        x = torch.randn(shape, device=DEVICE)
        close(ac.norm(x, axis=axis), torch.linalg.vector_norm(x.double(), dim=axis), 1e-6)
        half = x.half()
        close(ac.norm(half, axis=axis), torch.linalg.vector_norm(half.double(), dim=axis), 1e-3)
    for shape in ((5, 7), (64, 256), (1,), (1001,)):
        x = torch.randn(shape, device=DEVICE)
        close(ac.norm(x), torch.linalg.vector_norm(x.double()), 1e-6)


def sums() -> None:
    rng = np.random.default_rng(0)
    for entries, slots, columns in ((1000, 7, 33), (5, 9, 64), (4097, 1023, 130)):
        index = rng.integers(0, slots, entries)
        values = torch.randn(entries, columns, device=DEVICE)
        for order in (index, np.sort(index)):
            topology = ac.Topology.from_index(order, slots)
            right = torch.zeros(slots, columns, device=DEVICE, dtype=torch.float64)
            right.index_add_(0, torch.from_numpy(order).to(DEVICE), values.double())
            close(ac.scatter_add(values, topology), right, 1e-5)


def tiles() -> None:
    for length, size, dtype in ((129, 64, torch.bfloat16), (77, 32, torch.float16), (200, 64, torch.float32)):
        q, k, v = (torch.randn(1, 2, length, size, device=DEVICE, dtype=dtype, requires_grad=True) for _ in range(3))
        for mask in (ac.Window(17), ac.Causal()):
            with ac.using(kernel="tiles", device=DEVICE):
                out = ac.attention(q, k, v, mask=mask)
            torch.autograd.grad(out.sum(), (q, k, v))
            place = torch.arange(length, device=DEVICE)
            apart = place[:, None] - place[None, :]
            keep = apart.abs() < 17 if isinstance(mask, ac.Window) else apart >= 0
            scores = (q.double() @ k.double().mT / size**0.5).masked_fill(~keep, -torch.inf)
            close(out, scores.softmax(-1) @ v.double(), 2e-2)


def spectra() -> None:
    for shape, axes in (((7, 33), (0, 1)), ((300, 9), (1,)), ((6, 17, 3), (0, 1)), ((1025,), (0,))):
        x = torch.randn(shape, device=DEVICE, dtype=torch.complex64)
        for kernel, odd in itertools.product(("torch", "cupy"), (0, 1)):
            lengths = [shape[axis] for axis in axes]
            lengths[-1] = 2 * (lengths[-1] - 1) + odd
            expected = np.fft.irfftn(x.cpu().numpy().astype(complex), lengths, axes)
            with ac.using(kernel=kernel, device=DEVICE):
                close(ac.irfftn(x, lengths, axes), torch.from_numpy(expected).to(DEVICE), 1e-6)


PARTS: dict[str, Callable[[], None]] = {
    "expressions": expressions, "norms": norms, "sums": sums, "tiles": tiles, "spectra": spectra
}  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore", AdaptiveWarning)
    for name in sys.argv[1:] or PARTS:
        start = time.perf_counter()
        PARTS[name]()
        torch.cuda.synchronize()
        print(f"{name}: done in {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
