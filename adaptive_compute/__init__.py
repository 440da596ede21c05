"""One import for element-wise maths, FFT, NUFFT and tiled attention, on whatever the machine has."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Each room is loaded when one of its names is first used, so that importing the package costs next to nothing.
# __init__.pyi says the same to type checkers; a test compares the two.
_ROOMS = {
    "core.array": "device_of",
    "core.dispatcher": "dispatcher explain release releasing to",
    "core.masks": "Blocks Causal Prefix Window",
    "core.operations.attention": "attention",
    "core.operations.elementwise": (
        "abs absolute acos acosh add angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 "
        "atanh ceil clip conj cos cosh "
        "divide elementwise equal erf evaluate exp exp2 expm1 floor floor_divide gelu greater greater_equal imag "
        "isfinite isinf isnan less less_equal log log10 log1p log2 logical_and logical_not logical_or logical_xor "
        "maximum minimum multiply negative not_equal positive pow power real reciprocal relu remainder round rsqrt "
        "sigmoid sign silu sin sinh softplus sqrt square subtract tan tanh where"
    ),
    "core.operations.fft": (
        "fft fft2 fftn hfft hfft2 hfftn ifft ifft2 ifftn ihfft ihfft2 ihfftn irfft irfft2 irfftn rfft rfft2 rfftn"
    ),
    "core.operations.gather": "gather scatter_add segment_sum",
    "core.operations.reduce": "logsumexp max mean min norm sum",
    "core.settings": "settings using",
    "core.topology": "Topology",
    "core.transfer": "transfers",
    "pipelines.decorator": "pipeline",
    "integrations.scipy": "register_with_scipy scipy_backend",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}
_NUMPY = ("fftfreq", "fftshift", "ifftshift", "rfftfreq")

__all__ = sorted([*_ROOM_OF, *_NUMPY, "nufft"])


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    elif name in _NUMPY:
        value = getattr(import_module("numpy.fft"), name)
    elif name == "nufft":
        return import_module(f"{__name__}.nufft")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
