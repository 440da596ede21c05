"""The NUFFT kernel as polynomials: ``python -m adaptive_compute.backends.vulkan.nufft_kernel`` writes the GLSL.

The kernel is the prolate spheroidal wave function of order zero, the function of a given width that leaves least of its
energy outside a band [1]_ [2]_. With the fine grid twice as fine as the modes need, the band reaches 3/4 of a cycle a
cell: what lies above folds back onto the modes. The shape is 0.99 of that limit, where the error over all modes is
least.

References
----------
.. [1] D. Slepian, H. O. Pollak, "Prolate spheroidal wave functions, Fourier analysis and uncertainty - I", Bell System
   Technical Journal 40, 1961
.. [2] A. H. Barnett, J. F. Magland, L. af Klinteberg, "A parallel non-uniform fast Fourier transform library based on
   an exponential of semicircle kernel", SIAM J. Sci. Comput. 41(5), 2019
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.polynomial import chebyshev, legendre

from ...shaders import FOLDER

TARGET = FOLDER / "nufft_kernel.glsl"
WIDTHS = range(2, 8)
HIGHEST = 0.25  # the modes' largest frequency, in cycles a cell of the fine grid
_NODES, _WEIGHTS = legendre.leggauss(120)


def prolate(width: int) -> np.ndarray:
    """Return the kernel's Legendre coefficients on [-1, 1], scaled to 1 in the middle.

    The function is an eigenvector of a matrix that joins every Legendre polynomial with its neighbours of equal parity.
    """
    c = 0.99 * np.pi * width * (1 - HIGHEST)
    k = np.arange(0, 40 + 2 * int(c), 2)
    diagonal = k * (k + 1) + (2 * k * (k + 1) - 1) / ((2 * k + 3) * (2 * k - 1)) * c**2
    below = k[:-1]
    beside = (below + 1) * (below + 2) / ((2 * below + 3) * np.sqrt((2 * below + 1) * (2 * below + 5))) * c**2
    vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))[1]
    coefficients = np.zeros(k[-1] + 1)
    coefficients[k] = vectors[:, 0] * np.sqrt(k + 0.5)
    return coefficients / legendre.legval(0.0, coefficients)


def transform(width: int, frequency: np.ndarray) -> np.ndarray:
    """Return the kernel's Fourier transform; frequencies in cycles a cell."""
    values = _WEIGHTS * legendre.legval(_NODES, prolate(width))
    return width / 2 * np.cos(np.pi * width * np.multiply.outer(frequency, _NODES)) @ values


def error(width: int) -> float:
    """Return about the relative error that a kernel of this width leaves in one dimension."""
    return 0.39 * 10.0 ** (1 - width)


def expected_error(width: int, dim: int, modes: int) -> float:
    """Return about the relative error of a transform: the kernel's, float32's rounding, and that of the positions.

    A position is rounded to 2^-32 of a period, a phase by its frequency times as much: 2^-32 pi / 6 for each mode, in
    the root mean square over modes and points. Rounding elsewhere was measured at 3e-7 to 5e-7.
    """
    return dim**0.5 * (error(width) + 1.22e-10 * modes) + 5e-7


def pieces(width: int) -> list[np.ndarray]:
    """Return for each cell of the kernel's left half (and the middle) a polynomial's coefficients, lowest first.

    Its argument goes from -1 to 1 through the cell. The right half are the same with the argument's sign turned.
    """
    kernel = prolate(width)
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    found = []
    for cell in range((width + 1) // 2):
        values = legendre.legval((nodes + 1 + 2 * cell) / width - 1, kernel)
        middle = 2 * cell + 1 == width
        for degree in range(2, 16):
            fit = chebyshev.cheb2poly(chebyshev.chebfit(nodes, values, degree))
            if middle:
                fit[1::2] = 0
            if np.abs(np.polynomial.polynomial.polyval(nodes, fit) - values).max() < error(width) / 30:
                break
        found.append(fit)
    return found


def correction(width: int) -> np.ndarray:
    """Return the polynomial of (frequency / HIGHEST)**2 that gives 1 / transform, lowest coefficient first."""
    nodes = (np.cos(np.pi * (np.arange(64) + 0.5) / 64) + 1) / 2
    values = 1 / transform(width, HIGHEST * np.sqrt(nodes))
    for degree in range(3, 14):
        fit = chebyshev.cheb2poly(chebyshev.chebfit(2 * nodes - 1, values, degree, w=1 / values))
        if np.abs(np.polynomial.polynomial.polyval(2 * nodes - 1, fit) / values - 1).max() < 1e-8:
            break
    return fit


def _horner(coefficients: np.ndarray, name: str) -> str:
    """Return a polynomial as GLSL."""
    text = f"{coefficients[-1]:.8e}"
    for number, value in enumerate(coefficients[-2::-1]):
        text = f"{f'({text})' if number else text} * {name} {'-' if value < 0 else '+'} {abs(value):.8e}"
    return text


def source() -> Iterator[str]:
    """Yield the lines of the file."""
    yield "// Written by nufft_kernel.py of the Vulkan backend: the NUFFT's kernel for each WIDTH, and its correction."
    yield "// weights(): the kernel at WIDTH cells; s goes from -1 to 1 while the point goes through a cell, leftwards."
    yield "// corrected(): one over the kernel's transform, t = (4 x frequency in cycles a cell)^2 from 0 to 1."
    for number, width in enumerate(WIDTHS):
        yield f"#{'elif' if number else 'if'} WIDTH == {width}"
        yield "void weights(float s, out float k[WIDTH]) {"
        yield "    float t = s * s, even, odd;"
        for cell, fit in enumerate(pieces(width)):
            mirror = width - 1 - cell
            yield f"    even = {_horner(fit[::2], 't')};"
            if mirror == cell:
                yield f"    k[{cell}] = even;"
                continue
            yield f"    odd = {_horner(fit[1::2], 't')};"
            yield f"    k[{cell}] = even + odd * s;"
            yield f"    k[{mirror}] = even - odd * s;"
        yield "}"
        yield "float corrected(float t) {"
        yield "    t = 2.0 * t - 1.0;"
        yield f"    return {_horner(correction(width), 't')};"
        yield "}"
    yield "#endif"


if __name__ == "__main__":
    TARGET.write_text("\n".join(source()) + "\n", encoding="utf-8")
    print(f"wrote {TARGET}")
