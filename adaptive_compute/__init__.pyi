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
    explain as explain,
    to as to,
)
from .core.masks import (
    Blocks as Blocks,
    Causal as Causal,
    Prefix as Prefix,
    Window as Window,
)
from .core.operations.attention import (
    attention as attention,
)
from .core.operations.elementwise import (
    abs as abs,
    absolute as absolute,
    add as add,
    angle as angle,
    arccos as arccos,
    arccosh as arccosh,
    arcsin as arcsin,
    arcsinh as arcsinh,
    arctan as arctan,
    arctan2 as arctan2,
    arctanh as arctanh,
    ceil as ceil,
    clip as clip,
    conj as conj,
    cos as cos,
    cosh as cosh,
    divide as divide,
    elementwise as elementwise,
    equal as equal,
    erf as erf,
    evaluate as evaluate,
    exp as exp,
    exp2 as exp2,
    expm1 as expm1,
    floor as floor,
    floor_divide as floor_divide,
    gelu as gelu,
    greater as greater,
    greater_equal as greater_equal,
    imag as imag,
    isfinite as isfinite,
    isinf as isinf,
    isnan as isnan,
    less as less,
    less_equal as less_equal,
    log as log,
    log10 as log10,
    log1p as log1p,
    log2 as log2,
    logical_and as logical_and,
    logical_not as logical_not,
    logical_or as logical_or,
    logical_xor as logical_xor,
    maximum as maximum,
    minimum as minimum,
    multiply as multiply,
    negative as negative,
    not_equal as not_equal,
    positive as positive,
    power as power,
    real as real,
    reciprocal as reciprocal,
    relu as relu,
    remainder as remainder,
    round as round,
    rsqrt as rsqrt,
    sigmoid as sigmoid,
    sign as sign,
    silu as silu,
    sin as sin,
    sinh as sinh,
    softplus as softplus,
    sqrt as sqrt,
    square as square,
    subtract as subtract,
    tan as tan,
    tanh as tanh,
    where as where,
)
from .core.operations.fft import (
    fft as fft,
    fft2 as fft2,
    fftn as fftn,
    hfft as hfft,
    hfft2 as hfft2,
    hfftn as hfftn,
    ifft as ifft,
    ifft2 as ifft2,
    ifftn as ifftn,
    ihfft as ihfft,
    ihfft2 as ihfft2,
    ihfftn as ihfftn,
    irfft as irfft,
    irfft2 as irfft2,
    irfftn as irfftn,
    rfft as rfft,
    rfft2 as rfft2,
    rfftn as rfftn,
)
from .core.operations.gather import (
    gather as gather,
    scatter_add as scatter_add,
    segment_sum as segment_sum,
)
from .core.operations.reduce import (
    logsumexp as logsumexp,
    max as max,
    mean as mean,
    min as min,
    norm as norm,
    sum as sum,
)
from .core.settings import (
    settings as settings,
    using as using,
)
from .core.topology import (
    Topology as Topology,
)
from .core.transfer import (
    transfers as transfers,
)

__version__: str
