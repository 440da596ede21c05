"""The operator for MRI-NUFFT: against the sum by its definition, and against MRI-NUFFT's own operator on FINUFFT."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.errors import ArgumentError, DtypeError, NufftWarning, ShapeError
from adaptive_compute.core.waits import short_waits

with short_waits():  # of FINUFFT's threads, which spin where nothing is said
    mrinufft = pytest.importorskip("mrinufft", reason="pip install mri-nufft")

from adaptive_compute.integrations import mri_nufft as room

SHAPES = {1: (12,), 2: (8, 6), 3: (4, 6, 5)}
COILS = 3


def trajectory(dim, dtype="f8", count=60):
    return np.random.default_rng(dim).uniform(-np.pi, np.pi, (count, dim)).astype(dtype)


def complex_values(shape, dtype="f8", seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(f"c{2 * int(dtype[1])}")


def matrix(samples, shape):
    """E of one coil by its definition, ``(n_samples, pixels)``."""
    grids = np.meshgrid(*(np.arange(-(n // 2), (n + 1) // 2) for n in shape), indexing="ij")
    phase = samples.astype(float) @ np.stack([g.ravel() for g in grids])
    return np.exp(-1j * phase) / np.sqrt(np.prod(shape) * 2 ** len(shape))


def adaptive(*args, **kwargs):
    return mrinufft.get_operator("adaptive")(*args, **kwargs)


def maps(shape):
    found = complex_values((COILS, *shape), seed=5)
    return found / np.linalg.norm(found, axis=0)


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MRI-NUFFT's own, about numbers of coils and ranges of samples
        yield


def close(got, expected, dtype="f8", eps=1e-6):
    assert got.shape == expected.shape
    error = np.linalg.norm((np.asarray(got) - expected).ravel()) / np.linalg.norm(expected.ravel())
    assert error < (10 * eps if dtype == "f8" else 1e-5), error


@pytest.mark.slow  # a fresh process that imports torch
def test_importing_registers_it():
    code = (
        "import mrinufft\n"
        "print('adaptive' in mrinufft.list_backends())\n"
        "import adaptive_compute.integrations.mri_nufft\n"
        "print('adaptive' in mrinufft.list_backends(available_only=True))\n"
        "print(mrinufft.get_operator('adaptive').__name__)"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "MRIAdaptive"]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("sense", [False, True])
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_it_is_the_sum_and_its_adjoint(dim, batches, sense, dtype, monkeypatch):
    shape, samples = SHAPES[dim], trajectory(dim, dtype)
    smaps = maps(shape).astype(f"c{2 * int(dtype[1])}") if sense else None
    E = adaptive(samples, shape, n_coils=COILS, n_batchs=batches, smaps=smaps, squeeze_dims=False)
    A = matrix(samples, shape)
    x = complex_values(E.img_full_shape, dtype)
    y = complex_values(E.ksp_full_shape, dtype, seed=1)
    coil_images = (x * smaps if sense else x).reshape(batches, COILS, -1)
    forward = coil_images @ A.T
    adjoint = (y @ A.conj()).reshape(batches, COILS, *shape)
    if sense:
        adjoint = (smaps.conj() * adjoint).sum(1, keepdims=True)
    for pieces in (room.PIECE_BYTES, 1):  # all at once, and coil by coil
        monkeypatch.setattr(room, "PIECE_BYTES", pieces)
        got, back = E.op(x), E.adj_op(y)
        assert got.dtype == back.dtype == x.dtype
        close(got, forward, dtype)
        close(back, adjoint, dtype)
        close(E.data_consistency(x, y), E.adj_op((forward - y).astype(y.dtype)), dtype)
    assert abs(np.vdot(E.op(x), y) - np.vdot(x, E.adj_op(y))) < 1e-4 * abs(np.vdot(x, E.adj_op(y)))


@pytest.mark.parametrize("sense", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_it_agrees_with_mri_nuffts_own_on_finufft(dim, sense, quiet):
    shape, samples = SHAPES[dim], trajectory(dim, "f4")
    more = {"n_coils": COILS, "n_batchs": 2, "smaps": maps(shape).astype("c8") if sense else None, "density": "voronoi"}
    ours, theirs = (mrinufft.get_operator(name)(samples, shape, **more) for name in ("adaptive", "finufft"))
    np.testing.assert_allclose(ours.density, theirs.density)
    x = complex_values(theirs.img_full_shape, "f4")
    y = complex_values(theirs.ksp_full_shape, "f4", seed=1)
    for got, expected in ((ours.op(x), theirs.op(x)), (ours.adj_op(y), theirs.adj_op(y))):
        close(got, expected, "f4")
    assert ours.get_lipschitz_cst(20) == pytest.approx(theirs.get_lipschitz_cst(20), rel=0.02)


@pytest.mark.parametrize("density", ["voronoi", "pipe", True, "array"])
def test_density_compensation_is_theirs_and_weighs_the_adjoint(density, quiet):
    samples, shape = trajectory(2, "f4", 200), (32, 24)  # MRI-NUFFT's grids for Pipe's iteration cannot be smaller
    given = np.linspace(1, 2, 200).astype("f4") if density == "array" else density
    E = adaptive(samples, shape, density=given)
    if density == "array":
        expected = given
    elif density == "voronoi":
        expected = mrinufft.get_density("voronoi")(samples, shape)
    else:
        expected = mrinufft.get_operator("finufft").pipe(samples, shape).real
    np.testing.assert_allclose(E.density, expected, rtol=1e-4)
    y = complex_values(200, "f4")
    close(E.adj_op(y), (matrix(samples, shape).conj().T @ (expected * y)).reshape(shape), "f4")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sense", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_normal_operator_is_the_toeplitz_product(dim, real, sense, weighted):
    shape, samples = SHAPES[dim], trajectory(dim)
    density = np.random.default_rng(2).uniform(0.5, 2, len(samples)) if weighted else False
    smaps = maps(shape) if sense else None
    E = adaptive(samples, shape, density=density, n_coils=COILS, n_batchs=2, smaps=smaps, real=real, eps=1e-10)
    x = complex_values(E.img_full_shape)
    x = x.real if real else x
    A = matrix(samples, shape)
    gram = A.conj().T @ (A * np.reshape(density, (-1, 1)) if weighted else A)
    coil_images = (x * smaps if sense else x).reshape(2, COILS, -1)
    expected = (coil_images @ gram.T).reshape(2, COILS, *shape)
    expected = (smaps.conj() * expected).sum(1) if sense else expected
    expected = expected.real if real else expected
    got = E.normal_op(x)
    assert got.dtype == x.dtype
    close(got, expected, eps=1e-9)
    close(got, np.asarray(E.adj_op(E.op(x))), eps=1e-9)


def test_the_normal_operator_follows_trajectory_and_density():
    E = adaptive(trajectory(2), (8, 6), eps=1e-10)
    x = complex_values((8, 6))
    first = E.normal_op(x)
    E.density = np.full(60, 2.0)
    close(E.normal_op(x), 2 * first, eps=1e-9)
    E.density = None
    E.samples = trajectory(2)[::-1] * 0.5
    assert not np.allclose(E.normal_op(x), first)
    close(E.normal_op(x), E.adj_op(E.op(x)), eps=1e-9)


def test_real_images_and_their_adjoint():
    E = adaptive(trajectory(2), (8, 6), real=True, eps=1e-10)
    A = matrix(trajectory(2), (8, 6))
    x, y = np.random.default_rng(0).standard_normal((8, 6)), complex_values(60)
    close(E.op(x), A @ x.ravel(), eps=1e-9)
    back = E.adj_op(y)
    assert back.dtype == float
    close(back, (A.conj().T @ y).real.reshape(8, 6), eps=1e-9)
    assert np.vdot(E.op(x), y).real == pytest.approx(np.vdot(x, back))
    with pytest.raises(DtypeError, match="data must be real"):
        E.op(x + 0j)


def test_plans_are_kept_between_calls_and_operators(monkeypatch):
    from adaptive_compute.backends.cpu import nufft as kernels

    prepared = []
    original = kernels.PointsPlan._set
    monkeypatch.setattr(kernels.PointsPlan, "_set", lambda self, *args: (prepared.append(1), original(self, *args)))
    x, y = complex_values((8, 6)), complex_values(60)
    for _ in range(3):
        E = adaptive(trajectory(2), (8, 6))
        for _ in range(3):
            E.op(x)
            E.adj_op(y)
    assert len(prepared) == 1  # FINUFFT's plans run their adjoint, so one sorting serves both directions


def test_another_trajectory(quiet):
    E = adaptive(trajectory(2), (8, 6), density="voronoi")
    before = E.density
    new = np.random.default_rng(9).uniform(-0.5, 0.5, (60, 2))  # in units of the other convention
    E.samples = new
    assert not np.allclose(E.density, before)
    np.testing.assert_allclose(E.samples, 2 * np.pi * new)
    x = complex_values((8, 6))
    close(E.op(x), matrix(2 * np.pi * new, (8, 6)) @ x.ravel())
    E.update_samples(trajectory(2), unsafe=True)
    close(E.op(x), matrix(trajectory(2), (8, 6)) @ x.ravel())


def test_results_go_where_they_are_asked_for():
    E = adaptive(trajectory(2), (8, 6), n_coils=2)
    x, y = complex_values((2, 8, 6)), complex_values((2, 60))
    ksp, img = np.zeros_like(y), np.zeros_like(x)
    assert E.op(x, ksp) is ksp
    assert E.adj_op(y, img) is img
    np.testing.assert_array_equal(ksp, E.op(x))
    np.testing.assert_array_equal(img, E.adj_op(y))


def test_what_is_wrong_is_named():
    with pytest.raises(ShapeError, match="samples must have 3 coordinates"):
        adaptive(trajectory(2), (4, 4, 4))
    with pytest.raises(ShapeError, match="shape must have 1, 2 or 3 axes"):
        adaptive(trajectory(2), (4,) * 4)
    with pytest.raises(DtypeError, match="samples have dtype int64"):
        adaptive(np.zeros((3, 2), int), (4, 4))
    with pytest.raises(ValueError, match="upsampfac"):
        adaptive(trajectory(2), (4, 4), upsampfac=0.5)
    with pytest.warns(NufftWarning, match="'flavour'"):
        adaptive(trajectory(2), (4, 4), flavour=1)
    E = adaptive(trajectory(2), (8, 6))
    with pytest.raises(ValueError, match="Image shape"):
        E.op(complex_values((8, 7)))
    with pytest.raises(ArgumentError, match="squeeze_dims"):
        E.make_autograd()


def test_it_runs_where_it_is_told_to():
    E = adaptive(trajectory(2), (8, 6))
    x = complex_values((8, 6))
    with ac.using(kernel="direct"):
        assert ac.explain(E.op, x).chosen.kernel.name == "direct"
        close(E.op(x), matrix(trajectory(2), (8, 6)) @ x.ravel())


@pytest.mark.parametrize("optim", ["cg", "lsqr"])
def test_mri_nuffts_solvers_take_it(optim, quiet):
    E = adaptive(trajectory(2, count=400), (8, 6), squeeze_dims=False, eps=1e-9)
    x = complex_values((1, 1, 8, 6))
    got = E.pinv_solver(E.op(x), optim=optim, max_iter=200, progressbar=False)
    np.testing.assert_allclose(got, x, atol=1e-3)


def test_mri_nuffts_stack_of_slices_takes_it(quiet):
    plane = trajectory(2, "f4") / (2 * np.pi)
    samples = np.concatenate([np.hstack([plane, np.full((60, 1), z, "f4")]) for z in (-0.5, -0.25, 0, 0.25)])
    x = complex_values((8, 6, 4), "f4")
    found = [
        mrinufft.get_operator("stacked")(samples, (8, 6, 4), backend=name, smaps=None).op(x)
        for name in ("adaptive", "finufft")
    ]
    close(*found, "f4")


class TestGradients:
    """Against torch's gradients of the sum by its definition."""

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch", reason="pip install torch")

    @staticmethod
    def explicit(torch, samples, shape):
        grids = torch.meshgrid(*(torch.arange(-(n // 2), (n + 1) // 2).double() for n in shape), indexing="ij")
        phase = samples @ torch.stack([g.reshape(-1) for g in grids])
        return torch.exp(-1j * phase) / np.sqrt(np.prod(shape) * 2 ** len(shape))

    @pytest.mark.parametrize("sense", [False, True])
    @pytest.mark.parametrize("dim", [2, 3])
    @pytest.mark.parametrize("adjoint", [False, True])
    def test_by_data_and_trajectory(self, adjoint, dim, sense, torch):
        shape = SHAPES[dim]
        smaps = maps(shape) if sense else None
        make = mrinufft.get_operator("adaptive", wrt_data=True, wrt_traj=True)
        E = make(
            samples=trajectory(dim), shape=shape, n_coils=COILS, n_batchs=2, smaps=smaps, squeeze_dims=False, eps=1e-10
        )
        data = torch.tensor(complex_values(E.ksp_full_shape if adjoint else E.img_full_shape), requires_grad=True)
        A = self.explicit(torch, E.samples, shape)
        S = torch.tensor(smaps) if sense else None
        if adjoint:
            got = E.adj_op(data)
            exact = (data @ A.conj()).reshape(2, COILS, *shape)
            exact = (S.conj() * exact).sum(1, keepdim=True) if sense else exact
        else:
            got = E.op(data)
            exact = (data * S if sense else data).reshape(2, COILS, -1) @ A.T
        torch.testing.assert_close(got, exact, rtol=1e-8, atol=1e-8)
        aim = torch.tensor(complex_values(exact.shape, seed=7))
        ours, theirs = (
            torch.autograd.grad((y - aim).abs().square().sum(), (data, E.samples), retain_graph=True)
            for y in (got, exact)
        )
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)

    def test_paired_batches_have_maps_and_trajectories_of_their_own(self, torch, quiet):
        shape = (8, 6)
        plain = adaptive(trajectory(2), shape, n_coils=COILS, smaps=maps(shape), squeeze_dims=False, eps=1e-10)
        E = plain.make_autograd(wrt_traj=True, paired_batch=True)
        smaps = torch.tensor(np.stack([maps(shape), 1j * maps(shape)[::-1]]), requires_grad=True)
        samples = torch.tensor(np.stack([trajectory(2), trajectory(2) / 2]), requires_grad=True)
        x = torch.tensor(complex_values((2, 1, 1, *shape)), requires_grad=True)
        got = E.op(x, smaps=smaps, samples=samples)
        exact = torch.stack(
            [(x[i] * smaps[i]).reshape(1, COILS, -1) @ self.explicit(torch, samples[i], shape).T for i in range(2)]
        )
        torch.testing.assert_close(got, exact, rtol=1e-8, atol=1e-8)
        ours, theirs = (torch.autograd.grad(y.abs().pow(3).sum(), (x, smaps, samples)) for y in (got, exact))
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
        y = torch.tensor(complex_values((2, 1, COILS, 60)))
        back = E.adj_op(y, smaps=smaps, samples=samples)
        exact = torch.stack(
            [
                (smaps[i].conj() * (y[i] @ self.explicit(torch, samples[i], shape).conj()).reshape(1, COILS, *shape))
                .sum(1, keepdim=True)
                for i in range(2)
            ]
        )  # fmt: skip
        torch.testing.assert_close(back, exact, rtol=1e-8, atol=1e-8)
        with pytest.raises(ArgumentError, match="smaps must have one element"):
            E.op(x, smaps=smaps[:1])
        with pytest.raises(ArgumentError, match="paired_batch"):
            plain.make_autograd().op(x[0], smaps=smaps[0])

    def test_only_what_is_wanted_has_a_gradient(self, torch):
        E = adaptive(trajectory(2), (8, 6), squeeze_dims=False).make_autograd(wrt_data=False, wrt_traj=True)
        x = torch.ones(1, 1, 8, 6, dtype=torch.complex128, requires_grad=True)
        E.op(x).abs().sum().backward()
        assert x.grad is None
        assert E.samples.grad is not None
        E = adaptive(trajectory(2), (8, 6), squeeze_dims=False).make_autograd()
        assert not E.samples.requires_grad
        assert E.n_samples == 60  # what the module has not, the operator has

    def test_an_optimiser_moves_the_trajectory(self, torch):
        E = adaptive(trajectory(2), (8, 6), squeeze_dims=False, eps=1e-9).make_autograd(wrt_data=False, wrt_traj=True)
        aim = torch.tensor(matrix(trajectory(2) + 0.05, (8, 6)) @ complex_values((8, 6)).ravel())
        x = torch.tensor(complex_values((1, 1, 8, 6)))
        parameter = torch.nn.Parameter(torch.tensor(trajectory(2)))
        optimiser = torch.optim.Adam([parameter], lr=0.01)
        losses = []
        for _ in range(20):
            E.samples = parameter
            loss = (E.op(x).reshape(-1) - aim).abs().square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.1 * losses[0]

    def test_tensors_in_tensors_out(self, torch):
        E = adaptive(trajectory(2, "f4"), (8, 6), density=np.linspace(1, 2, 60).astype("f4"), n_coils=2)
        x, y = complex_values((2, 8, 6), "f4"), complex_values((2, 60), "f4")
        for call, data in ((E.op, x), (E.adj_op, y), (E.normal_op, x)):
            got = call(torch.tensor(data))
            assert isinstance(got, torch.Tensor)
            np.testing.assert_allclose(got.numpy(), call(data), atol=1e-5)
