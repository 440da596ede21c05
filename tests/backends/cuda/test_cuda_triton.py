"""The Triton kernels of attention in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from adaptive_compute.core.masks import Blocks, Causal, Prefix, Window

pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton is not installed (pip install triton)")

RULES = {
    "none": None, "causal": Causal(), "bottom-right": Causal("bottom-right"), "window": Window(20), "prefix": Prefix(0),
    "inverse": ~Window(30), "blocks": Blocks(np.random.default_rng(0).random((10, 13)) < 0.3, 16),
}  # fmt: skip


def mend_interpreter():
    """Let the interpreter take the bounds of a loop from arrays of one element, which NumPy 2.4 converts no more."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def mended(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = mended


def check(name):
    """Run the kernels of one mask and compare; called in a process of its own, where the interpreter is on."""
    import torch

    from adaptive_compute.backends.cuda.attention_tiles import TilesKernel
    from adaptive_compute.core.array import Operand
    from adaptive_compute.core.operation import Request
    from adaptive_compute.core.operations.attention_rule import BACKWARD, FAMILY

    mend_interpreter()
    rng = np.random.default_rng(1)
    for shape, key, dtype in (
        ((2, 2, 150, 24), (2, 1, 203, 24), "float32"),
        ((1, 1, 150, 16), (1, 1, 203, 16), "float16"),
    ):
        for operation in (FAMILY, BACKWARD):
            request = operation._request(shape, key, dtype, RULES[name])
            if operation is FAMILY:
                request = Request(FAMILY, request.operands, request.params._replace(return_lse=True), None, 1)
            operands = tuple(None if o is None else Operand(o.shape, o.dtype, "cpu", "torch") for o in request.operands)
            moved = Request(operation, operands, request.params, None, 1)
            kernel = TilesKernel(operation.name, "cpu")
            assert kernel.supports(moved) is True
            arrays = operation.arrays(request, rng)
            result = kernel.plan(moved).run(*[None if a is None else torch.from_numpy(a) for a in arrays])
            error = operation.error(request, arrays, tuple(part.numpy() for part in result))
            assert error <= operation.tolerance(request), (operation.name, dtype, error)


def check_norms():
    """Norms of every layout: short and long rows, columns, sums in one part and in several."""
    import torch

    from adaptive_compute.backends.cuda.reduce_triton import norm

    mend_interpreter()
    rng = np.random.default_rng(0)
    along = (1, 1, 1), (1, 70_001, 1), (3, 20_000, 1), (700, 5, 1), (5, 1, 1)
    across = (3, 40, 7), (1, 5000, 33), (2, 3, 5000)
    for outer, n, inner in (*along, *across):
        for size in (1.0, 1e25, 1e-30):
            x = (rng.standard_normal((outer, n, inner)) * size).astype(np.float32)
            found = norm(torch.from_numpy(x), outer, n, inner, torch.float32).reshape(outer, inner)
            exact = np.linalg.norm(x.astype(np.float64), axis=1)
            assert np.allclose(found.numpy().reshape(exact.shape) / size, exact / size, rtol=1e-6), (outer, n, inner)


def check_sums():
    """Sums of segments: in order or not, few and many entries a slot, empty slots, one column and many."""
    import torch

    from adaptive_compute.backends.cuda.gather_triton import segment_sums

    mend_interpreter()
    rng = np.random.default_rng(0)
    for entries, size, columns, in_order in (
        (100, 7, 32, True), (100, 9, 3, False), (40, 60, 130, False), (3000, 2, 2, False), (5, 1, 1, True),
    ):  # fmt: skip
        index = rng.integers(0, size, entries)
        index = np.sort(index) if in_order else index
        starts = torch.from_numpy(np.searchsorted(np.sort(index), np.arange(size + 1)))
        order = None if in_order else torch.from_numpy(np.argsort(index, kind="stable"))
        for dtype, wide in ((torch.float32, torch.float64), (torch.float16, torch.float32)):
            values = torch.from_numpy(rng.standard_normal((entries, columns))).to(dtype)
            longest = int(np.bincount(index).max())
            found = segment_sums(values, order, starts, size, longest, wide)
            exact = np.zeros((size, columns))
            np.add.at(exact, index, values.double().numpy())
            assert found.dtype == dtype
            bound = {torch.float32: 2e-6, torch.float16: 2e-3}[dtype]
            assert np.linalg.norm(found.double().numpy() - exact) <= bound * np.linalg.norm(exact)


def alone(call):
    """Run a function of this file in a process of its own, where the interpreter is on."""
    code = (
        f"import importlib.util as util; spec = util.spec_from_file_location('triton_test', {__file__!r}); "
        f"module = util.module_from_spec(spec); spec.loader.exec_module(module); module.{call}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", RULES)
def test_tiles_follow_the_definition(name):
    alone(f"check({name!r})")


def test_norms_follow_the_definition():
    alone("check_norms()")


def test_sums_of_segments_follow_the_definition():
    alone("check_sums()")


def test_tiles_of_sums_of_nothing():
    from adaptive_compute.backends.cuda.gather_triton import tile

    assert tile(0, 5) == (8, 1)
    assert tile(3, 0) == (1, 4)
