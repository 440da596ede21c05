# What `import adaptive_compute as ac` offers, for type checkers; __init__.py loads each name when it is first used.
from numpy.fft import fftfreq as fftfreq
from numpy.fft import fftshift as fftshift
from numpy.fft import ifftshift as ifftshift
from numpy.fft import rfftfreq as rfftfreq

from . import nufft as nufft
from .core.array import (
    device_of as device_of,
)
from .core.dispatcher import (
    dispatcher as dispatcher,
)
from .core.dispatcher import (
    explain as explain,
)
from .core.dispatcher import (
    release as release,
)
from .core.dispatcher import (
    releasing as releasing,
)
from .core.dispatcher import (
    to as to,
)
from .core.masks import (
    Blocks as Blocks,
)
from .core.masks import (
    Causal as Causal,
)
from .core.masks import (
    Prefix as Prefix,
)
from .core.masks import (
    Window as Window,
)
from .core.operations.attention import (
    attention as attention,
)
from .core.operations.elementwise import (
    abs as abs,
)
from .core.operations.elementwise import (
    absolute as absolute,
)
from .core.operations.elementwise import (
    acos as acos,
)
from .core.operations.elementwise import (
    acosh as acosh,
)
from .core.operations.elementwise import (
    add as add,
)
from .core.operations.elementwise import (
    angle as angle,
)
from .core.operations.elementwise import (
    arccos as arccos,
)
from .core.operations.elementwise import (
    arccosh as arccosh,
)
from .core.operations.elementwise import (
    arcsin as arcsin,
)
from .core.operations.elementwise import (
    arcsinh as arcsinh,
)
from .core.operations.elementwise import (
    arctan as arctan,
)
from .core.operations.elementwise import (
    arctan2 as arctan2,
)
from .core.operations.elementwise import (
    arctanh as arctanh,
)
from .core.operations.elementwise import (
    asin as asin,
)
from .core.operations.elementwise import (
    asinh as asinh,
)
from .core.operations.elementwise import (
    atan as atan,
)
from .core.operations.elementwise import (
    atan2 as atan2,
)
from .core.operations.elementwise import (
    atanh as atanh,
)
from .core.operations.elementwise import (
    ceil as ceil,
)
from .core.operations.elementwise import (
    clip as clip,
)
from .core.operations.elementwise import (
    conj as conj,
)
from .core.operations.elementwise import (
    cos as cos,
)
from .core.operations.elementwise import (
    cosh as cosh,
)
from .core.operations.elementwise import (
    divide as divide,
)
from .core.operations.elementwise import (
    elementwise as elementwise,
)
from .core.operations.elementwise import (
    equal as equal,
)
from .core.operations.elementwise import (
    erf as erf,
)
from .core.operations.elementwise import (
    evaluate as evaluate,
)
from .core.operations.elementwise import (
    exp as exp,
)
from .core.operations.elementwise import (
    exp2 as exp2,
)
from .core.operations.elementwise import (
    expm1 as expm1,
)
from .core.operations.elementwise import (
    floor as floor,
)
from .core.operations.elementwise import (
    floor_divide as floor_divide,
)
from .core.operations.elementwise import (
    gelu as gelu,
)
from .core.operations.elementwise import (
    greater as greater,
)
from .core.operations.elementwise import (
    greater_equal as greater_equal,
)
from .core.operations.elementwise import (
    imag as imag,
)
from .core.operations.elementwise import (
    isfinite as isfinite,
)
from .core.operations.elementwise import (
    isinf as isinf,
)
from .core.operations.elementwise import (
    isnan as isnan,
)
from .core.operations.elementwise import (
    less as less,
)
from .core.operations.elementwise import (
    less_equal as less_equal,
)
from .core.operations.elementwise import (
    log as log,
)
from .core.operations.elementwise import (
    log1p as log1p,
)
from .core.operations.elementwise import (
    log2 as log2,
)
from .core.operations.elementwise import (
    log10 as log10,
)
from .core.operations.elementwise import (
    logical_and as logical_and,
)
from .core.operations.elementwise import (
    logical_not as logical_not,
)
from .core.operations.elementwise import (
    logical_or as logical_or,
)
from .core.operations.elementwise import (
    logical_xor as logical_xor,
)
from .core.operations.elementwise import (
    maximum as maximum,
)
from .core.operations.elementwise import (
    minimum as minimum,
)
from .core.operations.elementwise import (
    multiply as multiply,
)
from .core.operations.elementwise import (
    negative as negative,
)
from .core.operations.elementwise import (
    not_equal as not_equal,
)
from .core.operations.elementwise import (
    positive as positive,
)
from .core.operations.elementwise import (
    pow as pow,
)
from .core.operations.elementwise import (
    power as power,
)
from .core.operations.elementwise import (
    real as real,
)
from .core.operations.elementwise import (
    reciprocal as reciprocal,
)
from .core.operations.elementwise import (
    relu as relu,
)
from .core.operations.elementwise import (
    remainder as remainder,
)
from .core.operations.elementwise import (
    round as round,
)
from .core.operations.elementwise import (
    rsqrt as rsqrt,
)
from .core.operations.elementwise import (
    sigmoid as sigmoid,
)
from .core.operations.elementwise import (
    sign as sign,
)
from .core.operations.elementwise import (
    silu as silu,
)
from .core.operations.elementwise import (
    sin as sin,
)
from .core.operations.elementwise import (
    sinh as sinh,
)
from .core.operations.elementwise import (
    softplus as softplus,
)
from .core.operations.elementwise import (
    sqrt as sqrt,
)
from .core.operations.elementwise import (
    square as square,
)
from .core.operations.elementwise import (
    subtract as subtract,
)
from .core.operations.elementwise import (
    tan as tan,
)
from .core.operations.elementwise import (
    tanh as tanh,
)
from .core.operations.elementwise import (
    where as where,
)
from .core.operations.fft import (
    fft as fft,
)
from .core.operations.fft import (
    fft2 as fft2,
)
from .core.operations.fft import (
    fftn as fftn,
)
from .core.operations.fft import (
    hfft as hfft,
)
from .core.operations.fft import (
    hfft2 as hfft2,
)
from .core.operations.fft import (
    hfftn as hfftn,
)
from .core.operations.fft import (
    ifft as ifft,
)
from .core.operations.fft import (
    ifft2 as ifft2,
)
from .core.operations.fft import (
    ifftn as ifftn,
)
from .core.operations.fft import (
    ihfft as ihfft,
)
from .core.operations.fft import (
    ihfft2 as ihfft2,
)
from .core.operations.fft import (
    ihfftn as ihfftn,
)
from .core.operations.fft import (
    irfft as irfft,
)
from .core.operations.fft import (
    irfft2 as irfft2,
)
from .core.operations.fft import (
    irfftn as irfftn,
)
from .core.operations.fft import (
    rfft as rfft,
)
from .core.operations.fft import (
    rfft2 as rfft2,
)
from .core.operations.fft import (
    rfftn as rfftn,
)
from .core.operations.gather import (
    gather as gather,
)
from .core.operations.gather import (
    scatter_add as scatter_add,
)
from .core.operations.gather import (
    segment_sum as segment_sum,
)
from .core.operations.reduce import (
    logsumexp as logsumexp,
)
from .core.operations.reduce import (
    max as max,
)
from .core.operations.reduce import (
    mean as mean,
)
from .core.operations.reduce import (
    min as min,
)
from .core.operations.reduce import (
    norm as norm,
)
from .core.operations.reduce import (
    sum as sum,
)
from .core.settings import (
    settings as settings,
)
from .core.settings import (
    using as using,
)
from .core.topology import (
    Topology as Topology,
)
from .core.transfer import (
    transfers as transfers,
)
from .integrations.scipy import (
    register_with_scipy as register_with_scipy,
)
from .integrations.scipy import (
    scipy_backend as scipy_backend,
)
from .pipelines.decorator import (
    pipeline as pipeline,
)

__version__: str
