"""One import for element-wise maths, FFT, NUFFT and tiled attention, on whatever the machine has."""

from numpy.fft import fftfreq, fftshift, ifftshift, rfftfreq

from . import nufft
from .core.array import device_of
from .core.dispatcher import dispatcher, explain, to
from .core.operations.fft import (
    fft, fft2, fftn, hfft, hfft2, hfftn, ifft, ifft2, ifftn, ihfft, ihfft2, ihfftn, irfft, irfft2, irfftn,
    rfft, rfft2, rfftn,
)  # fmt: skip
from .core.settings import settings, using
from .core.transfer import transfers

__version__ = "0.1.0"
