"""The implicit filter's Triton kernels in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytest.importorskip("triton", reason="Triton is not installed (pip install triton)")

from adaptive_compute.nn.filters import ImplicitFilter  # noqa: E402


def check():
    """Compare filters and gradients with float64; called in a process of its own, where the interpreter is on."""
    from triton.runtime import interpreter

    from adaptive_compute.nn.kernels import implicit_filter

    patch = interpreter._patch_lang_tensor

    def mended(tensor, scope):  # bounds of loops are arrays of one element, which NumPy 2.4 converts no more
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = mended
    implicit_filter.PROGRAMS = 3  # each has several tiles
    torch.manual_seed(0)
    for channels, length, width, bands in ((70, 200, 32, 5), (4, 64, 64, 16), (1, 1, 16, 1)):
        module = ImplicitFilter(channels, length, width=width, bands=bands)
        with torch.no_grad():
            module.log_factors.normal_(0, 0.3)
            module.frequency.add_(torch.randn_like(module.frequency))
        first, second = module.hidden
        operands = [
            module.features, first.weight, first.bias, second.weight, second.bias, module.frequency,
            module.last.weight, module.rates, module.log_factors,
        ]  # fmt: skip
        grad = torch.randn(channels, length)
        found = results(implicit_filter.implicit_filter, operands, grad)
        exact = results(reference, [x.detach().double().requires_grad_(x.requires_grad) for x in operands], grad)
        for number, (a, b) in enumerate(zip(found, exact)):
            assert (a - b).norm() <= 2e-6 * b.norm() + 1e-7, (channels, length, number)


def results(function, operands, grad):
    """Return a function's value and its gradients."""
    out = function(*operands)
    return out.detach(), *torch.autograd.grad(out, [x for x in operands if x.requires_grad], grad.to(out.dtype))


def reference(features, w1, b1, w2, b2, turns, last, rates, factors):
    """Return the filter, one position after the other."""
    values = []
    for t, x in enumerate(features):
        inner = torch.sin(turns[1] * (w2 @ torch.sin(turns[0] * (w1 @ x + b1)) + b2))
        values.append((last @ inner) * torch.exp(-rates * factors.exp() * t)[:, 0])
    return torch.stack(values, 1)


def test_kernels_follow_the_definition():
    code = (
        f"import importlib.util as util; spec = util.spec_from_file_location('filter_test', {__file__!r}); "
        "module = util.module_from_spec(spec); spec.loader.exec_module(module); module.check()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_supported():
    from adaptive_compute.nn.kernels.implicit_filter import supports

    def features(cuda=True, dtype=torch.float32, count=33):
        return SimpleNamespace(is_cuda=cuda, dtype=dtype, shape=(100, count))

    assert supports(features(), 64, 2)
    assert not supports(features(cuda=False), 64, 2)
    assert not supports(features(dtype=torch.bfloat16), 64, 2)
    assert not supports(features(count=65), 64, 2)
    assert not supports(features(), 48, 2)
    assert not supports(features(), 64, 3)


def test_plain_form_is_the_module():
    from adaptive_compute.nn.kernels.implicit_filter import plain_filter

    module = ImplicitFilter(6, 50, width=16, bands=3)
    first, second = module.hidden
    found = plain_filter(
        module.features, first.weight, first.bias, second.weight, second.bias, module.frequency, module.last.weight,
        module.rates, module.log_factors,
    )  # fmt: skip
    torch.testing.assert_close(found, module.kernel(), rtol=1e-5, atol=1e-6)
