"""The spectrum of a series sampled at irregular times: a Lomb-Scargle periodogram by two NUFFTs.

With y the values less their mean, P(f) is the power of the best sine of frequency f, from the sums of y e^(-2 pi i f t)
and of e^(-4 pi i f t) over the observations, both type-1 transforms. Compared with SciPy's direct sums on a part of the
grid.
"""

from __future__ import annotations

import time

import numpy as np
import scipy.signal
from picture import axes, output

import adaptive_compute as ac

OBSERVATIONS, DAYS, PERIODS = 20_000, 2_000.0, (3.1417, 0.7321)
FREQUENCIES, HIGHEST = 200_000, 2.0


def periodogram(t: np.ndarray, y: np.ndarray, count: int, highest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies and the normalised power, by the formulas of Press and Rybicki (1989)."""
    step = highest / count
    x = 2 * np.pi * step * (t - t.mean())  # phase advance per grid step
    y = y - y.mean()
    sum_y = ac.nufft.nufft1d1(x, y + 0j, 2 * count + 2, isign=-1, eps=1e-9)[count + 2 :]
    sum_2 = ac.nufft.nufft1d1(2 * x, np.ones_like(y) + 0j, 2 * count + 2, isign=-1, eps=1e-9)[count + 2 :]
    turn = np.exp(0.5j * np.angle(sum_2))  # Lomb's phase, that makes sine and cosine orthogonal
    c, s = (sum_y * np.conj(turn)).real, -(sum_y * np.conj(turn)).imag
    cc, ss = (len(t) + abs(sum_2)) / 2, (len(t) - abs(sum_2)) / 2
    return step * np.arange(1, count), (c**2 / cc + s**2 / ss)[: count - 1] / (y @ y)


def main() -> None:
    path = output(__doc__, "periodogram.png")
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, DAYS, OBSERVATIONS))
    y = sum(a * np.sin(2 * np.pi * t / p + k) for k, (p, a) in enumerate(zip(PERIODS, (0.1, 0.06))))
    y += rng.standard_normal(OBSERVATIONS)

    start = time.perf_counter()
    f, power = periodogram(t, y, FREQUENCIES, HIGHEST)
    seconds = time.perf_counter() - start
    part = slice(50_000, 50_200)
    start = time.perf_counter()
    direct = scipy.signal.lombscargle(t, y - y.mean(), 2 * np.pi * f[part], normalize=True)
    share = (time.perf_counter() - start) / 200 * len(f)
    assert np.allclose(power[part], direct, rtol=1e-6, atol=1e-12)
    print(f"{len(f)} frequencies of {OBSERVATIONS} observations: {seconds:.2f} s; direct sums: about {share:.0f} s")

    found, rest = [], power.copy()
    for _ in PERIODS:
        top = int(rest.argmax())
        found.append(1 / f[top])
        rest[max(top - 400, 0) : top + 400] = 0  # a few widths of a peak
    level = -np.log(1e-3 / (2 * HIGHEST * DAYS)) * 2 / OBSERVATIONS
    print("periods found:", ", ".join(f"{p:.4f} days" for p in found), f"(put in: {PERIODS})")
    assert all(min(abs(p - q) / q for q in PERIODS) < 1e-3 for p in found)

    figure, (series, spectrum) = axes(2)
    series.plot(t, y, ",")
    series.set(title="the series", xlabel="days")
    spectrum.plot(f, power, lw=0.4)
    spectrum.axhline(level, color="C1", ls=":", label="one false peak in a thousand such series")
    spectrum.set(title="its periodogram", xlabel="cycles per day", ylabel="share of the variance")
    spectrum.legend()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
