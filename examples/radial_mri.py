"""Radial MRI of eight coils, undersampled six times, reconstructed by CG-SENSE.

The scan is simulated: an image of ellipses, smooth coil sensitivities, spokes at the golden angle, noise. Conjugate
gradients solve E^H E x = E^H y; the normal operator is a Toeplitz one, so that the spokes are visited once.
"""

from __future__ import annotations

import time

import mrinufft
import numpy as np
from picture import axes, output

import adaptive_compute.integrations.mri_nufft  # noqa: F401  registers the operator; before mrinufft

SIDE, COILS, SPOKES, STEPS = 192, 8, 48, 15
ELLIPSES = (  # value, centre, half axes, angle
    (1.0, (0.0, 0.0), (0.9, 0.7), 0.0), (-0.7, (0.0, 0.0), (0.83, 0.63), 0.0), (0.4, (-0.2, 0.25), (0.35, 0.15), 1.2),
    (0.4, (-0.2, -0.25), (0.35, 0.15), 1.9), (0.5, (0.45, 0.0), (0.1, 0.12), 0.3), (0.6, (0.3, 0.3), (0.03, 0.05), 0.8),
)  # fmt: skip


def image() -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    made = np.zeros((SIDE, SIDE))
    for value, (cy, cx), (a, b), angle in ELLIPSES:
        u = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle)
        v = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
        made += value * ((u / a) ** 2 + (v / b) ** 2 < 1)
    return made.astype(np.complex64)


def sensitivities() -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angles = 2 * np.pi * np.arange(COILS) / COILS
    maps = np.stack([np.exp(-((y - 1.3 * np.sin(a)) ** 2 + (x - 1.3 * np.cos(a)) ** 2) / 2 + 1j * a) for a in angles])
    return (maps / np.sqrt((abs(maps) ** 2).sum(0))).astype(np.complex64)


def spokes() -> np.ndarray:
    angle = np.arange(SPOKES) * np.pi * (np.sqrt(5) - 1) / 2
    radius = np.linspace(-np.pi, np.pi, 2 * SIDE, endpoint=False)
    return np.stack([np.outer(np.cos(angle), radius), np.outer(np.sin(angle), radius)], -1).reshape(-1, 2)


def conjugate_gradients(normal, right: np.ndarray, steps: int) -> tuple[np.ndarray, list[float]]:
    x, r = np.zeros_like(right), right.copy()
    p, rho, residuals = r.copy(), np.vdot(r, r).real, []
    first = rho
    for _ in range(steps):
        q = normal(p)
        alpha = rho / np.vdot(p, q).real
        x += alpha * p
        r -= alpha * q
        rho, before = np.vdot(r, r).real, rho
        p = r + rho / before * p
        residuals.append(float(np.sqrt(rho / first)))
    return x, residuals


def main() -> None:
    path = output(__doc__, "radial_mri.png")
    truth, maps, places = image(), sensitivities(), spokes().astype(np.float32)
    scan = mrinufft.get_operator("adaptive")(places, (SIDE, SIDE), n_coils=COILS, smaps=maps)
    rng = np.random.default_rng(0)
    measured = scan.op(truth)
    noise = rng.standard_normal(measured.shape) + 1j * rng.standard_normal(measured.shape)
    measured = measured + (0.01 * np.abs(measured).std() * noise).astype(np.complex64)

    weights = np.hypot(*places.T) + np.pi / SIDE / 4
    gridded = mrinufft.get_operator("adaptive")(places, (SIDE, SIDE), n_coils=COILS, smaps=maps, density=weights)
    start = gridded.adj_op(measured)
    start *= np.vdot(start, truth).real / np.vdot(start, start).real

    begun = time.perf_counter()
    found, residuals = conjugate_gradients(scan.normal_op, scan.adj_op(measured), STEPS)
    seconds = time.perf_counter() - begun

    def error(x: np.ndarray) -> float:
        return float(np.linalg.norm(x - truth) / np.linalg.norm(truth))

    print(f"{SPOKES} spokes of {2 * SIDE} points, {COILS} coils, {SIDE} x {SIDE} pixels")
    print(f"relative error: gridding {error(start):.3f}, {STEPS} steps of CG-SENSE {error(found):.3f}; {seconds:.2f} s")
    assert error(found) < 0.75 * error(start)

    figure, places_ = axes(4)
    for axis, (title, picture) in zip(places_, (("the image", truth), ("gridding", start), ("CG-SENSE", found))):
        axis.imshow(abs(picture), cmap="gray", vmin=0, vmax=1)
        axis.set(title=title, xticks=[], yticks=[])
    places_[3].semilogy(range(1, STEPS + 1), residuals, "o-")
    places_[3].set(title="residual", xlabel="step")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
