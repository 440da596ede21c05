"""The normal operator of a radial MRI acquisition: by NUFFTs, ours and MRI-NUFFT's on FINUFFT, and by Toeplitz."""

from __future__ import annotations

import warnings

from adaptive_compute.integrations import mri_nufft as room  # before mrinufft, so that FINUFFT's threads do not spin

import mrinufft  # isort: skip
import numpy as np  # isort: skip

from benchmarks.record import paired, publish, ratio, summary

SIDE, COILS, SPOKES, READOUT = 256, 8, 402, 512


def error(a, b):
    return float(np.linalg.norm((a - b).ravel()) / np.linalg.norm(b.ravel()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    trajectory = mrinufft.initialize_2D_radial(SPOKES, READOUT).reshape(-1, 2).astype(np.float32) * (2 * np.pi)
    maps = rng.standard_normal((COILS, SIDE, SIDE, 2)).astype(np.float32).view(np.complex64)[..., 0]
    image = rng.standard_normal((SIDE, SIDE, 2)).astype(np.float32).view(np.complex64)[..., 0]
    kwargs = {"n_coils": COILS, "smaps": maps, "density": np.hypot(*trajectory.T)}
    ours = room.MRIAdaptive(trajectory, (SIDE, SIDE), **kwargs)
    theirs = mrinufft.get_operator("finufft")(trajectory, (SIDE, SIDE), **kwargs)
    exact = room.MRIAdaptive(
        trajectory.astype(float), (SIDE, SIDE), eps=1e-12, **{**kwargs, "smaps": maps.astype(complex)}
    )
    exact = exact.adj_op(exact.op(image))
    calls = {
        "toeplitz": lambda: ours.normal_op(image),
        "ours": lambda: ours.adj_op(ours.op(image)),
        "mri_nufft": lambda: theirs.adj_op(theirs.op(image)),
    }
    errors = {name: error(call(), exact) for name, call in calls.items()}
    times = paired(calls, rounds=9)
    figures = {
        "image": [SIDE, SIDE], "coils": COILS, "samples": len(trajectory), "dtype": "complex64", "eps": 1e-6,
        "seconds": {name: summary(samples) for name, samples in times.items()},
        "relative_error": errors,
        "by_nufft_over_toeplitz": ratio(times["ours"], times["toeplitz"]),
        "mri_nufft_over_ours": ratio(times["mri_nufft"], times["ours"]),
    }  # fmt: skip
    publish(
        "mri_normal",
        figures,
        "\n".join(
            f"{name:10}{figures['seconds'][name]['median'] * 1e3:9.1f} ms, error {errors[name]:.1e}" for name in calls
        )
        + f"\nby NUFFTs / by Toeplitz {figures['by_nufft_over_toeplitz']['median']:.1f}, "
        f"MRI-NUFFT / ours by NUFFTs {figures['mri_nufft_over_ours']['median']:.2f}",
    )
