"""Spectral layers: ``torch.nn.Module`` on the public face alone, that run, and train, wherever calls are routed.

    from adaptive_compute import nn

    layer = nn.GatedConvolution(256, max_length=2048)
    y = layer(x)                                  # x, y: (batch, length, 256)

Inputs are (batch, length, dim); constructors take ``dim`` first. Every layer class says by its attribute ``causal``
whether an output depends on its own and earlier positions alone. A name's module is loaded when it is first used.
"""

from importlib import import_module
from typing import Any

# A file of this room, and the public names it holds: one line a file.
_FILES = {
    "bytes": "ByteEmbedding ByteEncoder byte_features byte_frequencies to_bytes",
    "certificate": "CausalityReport Leak certify_causal",
    "complex": "ComplexEmbedding ComplexLinear",
    "convolution": "causal_convolution gated_convolution",
    "frequency": "FrequencyAttention FrequencyLayerNorm FrequencyReLU FrequencyTransformerLayer "
    "SpectrumAttention signal spectrum",
    "gated": "GatedConvolution",
    "layer": "Layer",
    "mixing": "CircularMixing FNetMixing SpectralMixing",
    "precision_attention": "AdaptivePrecisionAttention PrecisionReport",
    "quantize": "Int8Quantizer PolarQuantizer QuantizedTensor",
    "sparse": "SparseSpectralTensor",
    "spectral_attention": "CausalSpectralAttention SpectralAttention",
    "spectral_linear": "SpectralLinear SpectralReport spectralize",
    "storage": "load save",
    "streaming_matmul": "block_streaming_matmul",
    "topology_attention": "RoutingReport TopologyAttention",
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names.split()}
_MODULES = ("leaks",)  # whose names stay in them: layers that nobody should take for causal ones

__all__ = sorted([*_FILE_OF, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
