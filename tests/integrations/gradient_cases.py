"""Every operation in its variants, as functions of tensors: what the tests of gradients run over.

A case is made for a device: its operands are float64 or complex128 tensors on the CPU, which a test may cast and move;
masks and indices that are arrays go where the operands are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import adaptive_compute as ac

REAL, COMPLEX = torch.float64, torch.complex128


class Case(NamedTuple):
    """A function of the tensors that ``operands`` makes; ``smooth`` is False where it has kinks between them."""

    family: str
    name: str
    function: Callable[..., Any]
    operands: Callable[[], list[torch.Tensor]]
    smooth: bool = True

    def __str__(self) -> str:
        return f"{self.family} {self.name}"


def tensors(*shapes: Any, low: float | None = None, high: float = 1.0) -> Callable[[], list[torch.Tensor]]:
    """Return what makes tensors: a shape is real, a shape in a list complex; normal, or uniform between two bounds."""

    def make() -> list[torch.Tensor]:
        rng = np.random.default_rng(7)
        found = []
        for shape in shapes:
            size, dtype = (shape[0], COMPLEX) if isinstance(shape, list) else (shape, REAL)
            values = rng.standard_normal(size)
            if dtype is COMPLEX:
                values = values + 1j * rng.standard_normal(size)
            elif low is not None:
                values = rng.uniform(low, high, size)
            found.append(torch.from_numpy(np.asarray(values)).to(dtype))
        return found

    return make


def _fft() -> list[Case]:
    cases = []
    for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"):
        shape: Any = (3, 5) if name in ("rfft", "ihfft") else [(3, 5)]
        one, several = getattr(ac, name), getattr(ac, name + "n")
        for text, arguments in (
            ("", ()),
            ("cut", (4, 1, "ortho")),
            ("padded, first axis", (6, 0, "forward")),
        ):
            cases.append(Case("fft", f"{name} {text}", lambda x, f=one, a=arguments: f(x, *a), tensors(shape)))
        for text, arguments in (("", ()), ("fitted", ((4, 4), (1, 0), "ortho"))):
            cases.append(Case("fft", f"{name}n {text}", lambda x, f=several, a=arguments: f(x, *a), tensors(shape)))
    return cases


def _nufft() -> list[Case]:
    cases = []
    for dim in (1, 2, 3):
        modes, points, targets = (5, 4, 3)[:dim], 7, 4
        coordinates = [(points,)] * dim
        one, two, three = (getattr(ac.nufft, f"nufft{dim}d{kind}") for kind in (1, 2, 3))
        for text, options, lead in (("", {}, ()), (" of a stack", {"modeord": 1, "isign": -1}, (2,))):
            of = {"options": options, "dim": dim}

            def first(*a, n=modes, f=one, of=of):
                return f(*a[:-1], a[-1], n, eps=EPS[a[0].dtype], **of["options"])

            def second(*a, f=two, of=of):
                return f(*a[:-1], a[-1], eps=EPS[a[0].dtype], **of["options"])

            def third(*a, f=three, of=of):
                dim = of["dim"]
                return f(*a[:dim], a[-1], *a[dim:-1], eps=EPS[a[0].dtype], isign=of["options"].get("isign", 1))

            strengths: list[Any] = [[(*lead, points)]]
            cases.append(Case("nufft", f"{dim}d1{text}", first, _points(*coordinates, *strengths)))
            cases.append(Case("nufft", f"{dim}d2{text}", second, _points(*coordinates, [(*lead, *modes)])))
            cases.append(Case("nufft", f"{dim}d3{text}", third, _points(*coordinates, *[(targets,)] * dim, *strengths)))
    return cases


def _points(*shapes: Any) -> Callable[[], list[torch.Tensor]]:
    return tensors(*shapes, low=-3.0, high=3.0)


EPS = {torch.float64: 1e-12, torch.float32: 1e-6}


def _attention() -> list[Case]:
    rng = np.random.default_rng(3)
    kept = rng.random((6, 6)) < 0.6
    kept[2] = False
    few = [(2, 3, 4)] * 3
    grouped = [(1, 4, 3, 2), (1, 2, 5, 2), (1, 2, 5, 3)]

    def plain(q, k, v, **options):
        return ac.attention(q, k, v, **options)

    def array(q, k, v, **options):
        return ac.attention(q, k, v, mask=torch.from_numpy(kept[: q.shape[-2], : k.shape[-2]]).to(q.device), **options)

    def biased(q, k, v, bias, **options):
        return ac.attention(q, k, v, bias=bias, **options)

    blocks = ac.Blocks(np.array([[1, 0], [1, 1]], bool), 2)
    compiled = ac.Topology.from_mask(kept[:3, :3])
    long = [(4, 2)] * 3
    return [
        Case("attention", "plain", plain, tensors(*few)),
        Case("attention", "one head, scale", lambda *a: plain(*a, scale=0.3), tensors((3, 4), (5, 4), (5, 2))),
        Case("attention", "causal", lambda *a: plain(*a, is_causal=True), tensors(*few)),
        Case("attention", "decoding", lambda *a: plain(*a, mask=ac.Causal(align="bottom-right")),
             tensors((1, 2, 4), (1, 5, 4), (1, 5, 4))),
        Case("attention", "window and prefix", lambda *a: plain(*a, mask=ac.Window(2) | ac.Prefix(1)), tensors(*few)),
        Case("attention", "inverse", lambda *a: plain(*a, mask=~ac.Window(1)), tensors(*few)),
        Case("attention", "blocks", lambda *a: plain(*a, mask=blocks), tensors(*long)),
        Case("attention", "compiled mask", lambda *a: plain(*a, mask=compiled), tensors(*few)),
        Case("attention", "array mask", array, tensors((2, 3, 4), (2, 5, 4), (2, 5, 4))),
        Case("attention", "grouped", lambda *a: plain(*a, enable_gqa=True, mask=ac.Window(3)), tensors(*grouped)),
        Case("attention", "bias", biased, tensors(*few, (2, 3, 3))),
        Case("attention", "shared bias, causal", lambda *a: biased(*a, is_causal=True), tensors(*few, (3, 3))),
        Case("attention", "grouped, bias", lambda *a: biased(*a, enable_gqa=True), tensors(*grouped, (4, 1, 5))),
        Case("attention", "logsumexp", lambda *a: plain(*a, return_lse=True)[1], tensors(*few)),
        Case("attention", "both results", _joined, tensors(*few)),
    ]  # fmt: skip


def _joined(q: Any, k: Any, v: Any) -> Any:
    out, lse = ac.attention(q, k, v, return_lse=True, is_causal=True)
    return torch.cat([out.reshape(-1), lse.reshape(-1)])


UNARY = {
    "negative": None, "positive": None, "reciprocal": (0.5, 2), "square": None, "sqrt": (0.5, 2), "exp": None,
    "exp2": None, "expm1": None, "log": (0.5, 2), "log2": (0.5, 2), "log10": (0.5, 2), "log1p": (0.5, 2), "sin": None,
    "cos": None, "tan": (-1, 1), "sinh": None, "cosh": None, "tanh": None, "arcsin": (-0.8, 0.8),
    "arccos": (-0.8, 0.8), "arctan": None, "arcsinh": None, "arccosh": (1.5, 3), "arctanh": (-0.8, 0.8), "erf": None,
    "rsqrt": (0.5, 2), "sigmoid": None, "softplus": None, "silu": None, "gelu": None, "relu": (0.1, 1),
    "absolute": (0.1, 1), "real": None, "conj": None,
}  # fmt: skip
OF_COMPLEX = (
    "negative", "reciprocal", "square", "sqrt", "exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "absolute",
    "real", "imag", "conj", "angle", "arcsin", "arccos", "arctan", "arcsinh", "arctanh", "log1p", "expm1",
)  # fmt: skip
BINARY = ("add", "subtract", "multiply", "divide", "power", "arctan2", "maximum", "minimum", "remainder")


def _elementwise() -> list[Case]:
    cases = []
    for name, bounds in UNARY.items():
        low, high = bounds or (-1.5, 1.5)
        cases.append(Case("elementwise", name, getattr(ac, name), tensors((4,), low=low, high=high)))
    one, two = tensors([(4,)]), tensors([(2, 2)], [(2, 1)])
    cases += [Case("elementwise", f"{name} of complex", getattr(ac, name), one) for name in OF_COMPLEX]
    for name in BINARY:
        made = tensors((2, 3), (3,), low=0.5, high=2.0)
        cases.append(Case("elementwise", f"{name}, broadcast", getattr(ac, name), made, name != "remainder"))
    cases += [
        Case("elementwise", f"{name} of complex", getattr(ac, name), two) for name in ("multiply", "divide", "power")
    ]

    @ac.elementwise
    def lorentz(x: Any, width: Any) -> Any:
        return 1 / (1 + (x / width) ** 2)

    positive = tensors((2, 3), (3,), low=0.5, high=2.0)
    return [
        *cases,
        Case("elementwise", "real and complex", lambda a, b: ac.evaluate("a*b + abs(b)*a", a=a, b=b),
             tensors((3,), [(2, 3)])),
        Case("elementwise", "expression", lambda a, b: ac.evaluate("a*b + sin(a)*exp(-b) + 2.5*a**3", a=a, b=b),
             positive),
        Case("elementwise", "complex expression", lambda a, b: ac.evaluate("a*conj(b) + exp(a)*imag(b)", a=a, b=b),
             tensors([(3,)], [(1,)])),
        Case("elementwise", "function", lambda a, b: lorentz(a, b), positive),
        Case("elementwise", "where", lambda a, b: ac.where(ac.greater(a, 1.2), a * a, b), positive, False),
        Case("elementwise", "clip", lambda a: ac.clip(a, 0.7, 1.5), tensors((7,), low=0.5, high=2.0), False),
        Case("elementwise", "power of a number", lambda a: ac.power(a, 2.5), tensors((4,), low=0.5, high=2.0)),
        Case("elementwise", "tanh form of gelu", lambda a: ac.gelu(a, approximate="tanh"), tensors((4,))),
    ]  # fmt: skip


def _reduce() -> list[Case]:
    cases = []
    for name in ("sum", "mean", "max", "min", "logsumexp", "norm"):
        function = getattr(ac, name)
        for text, options in (("all", {}), ("rows", {"axis": 1}), ("kept", {"axis": (0, 2), "keepdims": True})):
            cases.append(Case("reduce", f"{name} {text}", lambda x, f=function, o=options: f(x, **o),
                              tensors((2, 3, 2))))  # fmt: skip
    made = tensors([(3, 2)])
    functions = {"sum": ac.sum, "mean": ac.mean, "norm": ac.norm}
    return cases + [Case("reduce", f"{n} of complex", lambda x, f=f: f(x, 0), made) for n, f in functions.items()]


def _gather() -> list[Case]:
    index = np.array([0, 2, 2, 1])
    topology, ordered = ac.Topology.from_index(index, size=4), ac.Topology.from_index([0, 0, 2, 2, 3], size=5)
    return [
        Case("gather", "gather", lambda x: ac.gather(x, index), tensors((3, 2))),
        Case("gather", "gather, last axis", lambda x: ac.gather(x, topology, 1), tensors((2, 4))),
        Case("gather", "gather of complex", lambda x: ac.gather(x, topology), tensors([(4,)])),
        Case("gather", "scatter_add", lambda x: ac.scatter_add(x, index, 5), tensors((4, 2))),
        Case("gather", "scatter_add, last axis", lambda x: ac.scatter_add(x, topology, axis=1), tensors([(2, 4)])),
        Case("gather", "segment_sum", lambda x: ac.segment_sum(x, ordered), tensors((5, 2))),
        Case("gather", "segment_sum of ids", lambda x: ac.segment_sum(x, [1, 1, 0], 3), tensors((3,))),
    ]


CASES = [*_fft(), *_nufft(), *_attention(), *_elementwise(), *_reduce(), *_gather()]

# What every run of the tests covers: each rule once, at least.
QUICK = {
    "fft ", "irfft cut", "rfftn fitted", "1d1", "2d2 of a stack", "1d3", "plain", "grouped, bias", "array mask",
    "logsumexp", "power, broadcast", "complex expression", "function", "where", "max all", "norm of complex",
    "logsumexp kept", "gather, last axis", "segment_sum",
}  # fmt: skip
# Finite differences move the points of a nonuniform transform, and each move plans again: these take 2 to 30 s.
LONG = {"3d3", "3d3 of a stack", "3d1 of a stack", "3d2 of a stack"}


def parts(every: int, quick: set[str] = QUICK, without: set[str] | frozenset[str] = frozenset()) -> list[Any]:
    """Return pytest's parameters: the quick cases, and of the others each ``every``-th for a slow run."""
    rest = [case for case in CASES if case.name not in quick | without]
    slow = [pytest.param(case, id=str(case), marks=pytest.mark.slow) for case in rest[::every]]
    return [pytest.param(case, id=str(case)) for case in CASES if case.name in quick] + slow
