"""What a warm call costs besides its work: ac.fft of 256 complex points against scipy.fft.fft and the bare engine."""

from __future__ import annotations

import warnings

from adaptive_compute.cli.bench import overhead
from adaptive_compute.core.errors import NoProfileWarning
from benchmarks.record import publish

if __name__ == "__main__":
    warnings.simplefilter("ignore", NoProfileWarning)
    figures = overhead()
    publish(
        "overhead",
        figures,
        f"ac.fft {figures['ours_us']:.2f} us, scipy.fft.fft {figures['scipy_us']:.2f} us, "
        f"{figures['kernel']} itself {figures['kernel_us']:.2f} us; "
        f"ac.fft - scipy.fft.fft: {figures['over_scipy_us']:+.2f} us (median of paired rounds)",
    )
