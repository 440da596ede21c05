"""An echo found in noise by a matched filter, and a dry sound put into a hall, each one pipeline.

Both are FFT -> product -> inverse FFT. `@ac.pipeline` records the three calls once and places them as a whole.
"""

from __future__ import annotations

import numpy as np
from picture import axes, output

import adaptive_compute as ac

RATE, SECONDS = 48_000, 4
AT, LOUDNESS = 2.3217, 0.05


@ac.pipeline
def correlate(signal, pattern):
    """Correlate circularly; the arguments are padded, so that nothing wraps around."""
    return ac.irfft(ac.rfft(signal) * ac.conj(ac.rfft(pattern)), n=signal.shape[-1])


@ac.pipeline
def convolve(signal, response):
    return ac.irfft(ac.rfft(signal) * ac.rfft(response), n=signal.shape[-1])


def padded(x: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([x, np.zeros(length - len(x))])


def main() -> None:
    path = output(__doc__, "matched_filter.png")
    rng = np.random.default_rng(0)
    length = 1 << (RATE * SECONDS * 2 - 1).bit_length()
    t = np.arange(RATE // 10) / RATE
    chirp = np.sin(2 * np.pi * (2_000 * t + 30_000 * t**2)) * np.hanning(len(t))

    noisy = rng.standard_normal(RATE * SECONDS)
    first = round(AT * RATE)
    noisy[first : first + len(chirp)] += LOUDNESS * chirp * np.sqrt(len(chirp)) / np.linalg.norm(chirp) * 3
    match = correlate(padded(noisy, length), padded(chirp, length))[: len(noisy)]
    found = int(np.argmax(match)) / RATE
    noise = float(np.median(abs(match)) / 0.6745)
    print(f"echo at {found:.4f} s (put at {AT} s), {match.max() / noise:.1f} times the filter's noise")
    assert abs(found - AT) < 1e-3

    taps = np.arange(RATE * 2) / RATE
    hall = rng.standard_normal(len(taps)) * np.exp(-taps / 0.4)
    hall[0] = 20.0
    dry = np.zeros(RATE * SECONDS)
    for k in range(5):
        begin = k * RATE // 2
        dry[begin : begin + len(chirp)] += chirp
    wet = convolve(padded(dry, length), padded(hall, length))
    direct = np.convolve(dry[:4000], hall)[:4000]
    assert np.allclose(wet[:4000], direct, atol=1e-9 * abs(direct).max())
    print(correlate.explain(padded(noisy, length), padded(chirp, length)))

    figure, (signal, filtered, sound) = axes(3)
    s = np.arange(len(noisy)) / RATE
    signal.plot(s[::20], noisy[::20], lw=0.3)
    signal.set(title="what was received", xlabel="s")
    filtered.plot(s, match / noise, lw=0.4)
    filtered.axvline(AT, color="C1", ls=":", label="the echo")
    filtered.set(title="after the matched filter", xlabel="s")
    filtered.legend()
    sound.plot(s[::10], wet[: len(s) : 10] / abs(wet).max(), lw=0.3, label="in the hall")
    sound.plot(s[::10], dry[::10] / 2, lw=0.3, label="dry")
    sound.set(title="reverberation", xlabel="s")
    sound.legend()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
