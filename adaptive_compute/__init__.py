"""One import for element-wise maths, FFT, NUFFT and tiled attention, on whatever the machine has."""

from numpy.fft import fftfreq, fftshift, ifftshift, rfftfreq

from . import nufft
from .core.array import device_of
from .core.dispatcher import dispatcher, explain, to
from .core.operations.elementwise import (
    abs, absolute, add, angle, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, ceil, clip, conj, cos,
    cosh, divide, elementwise, equal, erf, evaluate, exp, exp2, expm1, floor, floor_divide, gelu, greater,
    greater_equal, imag, isfinite, isinf, isnan, less, less_equal, log, log10, log1p, log2, logical_and,
    logical_not, logical_or, logical_xor, maximum, minimum, multiply, negative, not_equal, positive, power, real,
    reciprocal, relu, remainder, round, rsqrt, sigmoid, sign, silu, sin, sinh, softplus, sqrt, square, subtract,
    tan, tanh, where,
)  # fmt: skip
from .core.operations.fft import (
    fft, fft2, fftn, hfft, hfft2, hfftn, ifft, ifft2, ifftn, ihfft, ihfft2, ihfftn, irfft, irfft2, irfftn,
    rfft, rfft2, rfftn,
)  # fmt: skip
from .core.operations.gather import gather, scatter_add, segment_sum
from .core.operations.reduce import logsumexp, max, mean, min, norm, sum
from .core.settings import settings, using
from .core.topology import Topology
from .core.transfer import transfers

__version__ = "0.1.0"
