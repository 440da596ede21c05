"""The same lines on every device of this machine: an image blurred, sharpened again, and compared.

`ac.to` puts the image on a device; the calls after it stay there, and one transfer brings the result back.
"""

from __future__ import annotations

import time

import numpy as np
from picture import axes, output

import adaptive_compute as ac

SIDE, WIDTH, NOISE = 512, 2.0, 1e-3


def sharpen(blurred, response):
    """Wiener's filter: what was damped is raised again, as far as the noise allows."""
    spectrum = ac.fft2(blurred)
    spectrum = ac.evaluate("s * r / (r*r + n)", s=spectrum, r=response, n=np.float32(NOISE))
    return ac.real(ac.ifft2(spectrum))


def main() -> None:
    path = output(__doc__, "anywhere.png")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    picture = (((x // 32 + y // 32) % 2) * 0.5 + 0.5 * (np.hypot(x - 256, y - 256) < 150)).astype(np.float32)
    f = np.fft.fftfreq(SIDE)
    response = np.exp(-2 * (np.pi * WIDTH) ** 2 * (f[:, None] ** 2 + f**2)).astype(np.complex64)
    blurred = np.fft.ifft2(np.fft.fft2(picture) * response).real.astype(np.float32)
    blurred += np.float32(NOISE) * rng.standard_normal(picture.shape, dtype=np.float32)

    results = {}
    for device in ac.dispatcher.registry.devices():
        here, filter_ = ac.to(blurred, device), ac.to(response, device)
        sharpen(here, filter_)  # plans are made once
        before = time.perf_counter()
        result = ac.to(sharpen(here, filter_), "cpu")
        seconds = time.perf_counter() - before
        results[device] = np.asarray(result)
        error = np.linalg.norm(results[device] - picture) / np.linalg.norm(picture)
        print(f"{device}: {seconds * 1e3:.2f} ms, error {error:.4f}")
    first = next(iter(results.values()))
    assert all(np.linalg.norm(r - first) <= 1e-5 * np.linalg.norm(first) for r in results.values())
    assert np.linalg.norm(first - picture) < 0.8 * np.linalg.norm(blurred - picture)

    figure, places = axes(3)
    for axis, (title, image) in zip(places, (("the image", picture), ("blurred", blurred), ("sharpened", first))):
        axis.imshow(image[150:362, 150:362], cmap="gray", vmin=0, vmax=1)
        axis.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
