"""Compressed tensors and layers in files of the safetensors format: numbers alone, nothing that a reader would run."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from ..core.errors import ArgumentError, ArgumentTypeError, BackendUnavailable
from .layer import one_of
from .quantize import QuantizedTensor
from .sparse import SparseSpectralTensor
from .spectral_index import SpectralIndex
from .spectral_linear import SpectralLinear, SpectralReport

FORMAT = "adaptive_compute.nn/1"
DTYPES = {str(dtype)[6:]: dtype for dtype in (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128
)}  # fmt: skip

# What making an object from a header of other numbers, or of other types, can come to.
_WRONG = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)

Compressed = QuantizedTensor | SparseSpectralTensor | SpectralLinear


def save(what: Compressed, path: str | os.PathLike[str]) -> None:
    """Write a compressed tensor or layer to a file; a reader sees the old file or the new one, never a part.

    Parameters
    ----------
    what : QuantizedTensor, SparseSpectralTensor or SpectralLinear
        What to write, from any device.
    path : str or path
        The file, by custom ``*.safetensors``; its folder must be there.

    Raises
    ------
    ArgumentTypeError
        If ``what`` is something else.
    OSError
        If the file cannot be written; what was there stays.
    BackendUnavailable
        If safetensors is not installed.

    Examples
    --------
    >>> import tempfile, torch
    >>> from adaptive_compute import nn
    >>> small = nn.PolarQuantizer(8).quantize(torch.randn(32, 32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.save(small, f"{folder}/w.safetensors")
    ...     again = nn.load(f"{folder}/w.safetensors")
    >>> torch.equal(again.dequantize(), small.dequantize())
    True
    """
    library = _safetensors()
    tensors, about = _parts(what)
    moved = {name: part.detach().cpu().contiguous() for name, part in tensors.items()}
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        os.close(handle)
        library.save_file(moved, temporary, metadata={"format": FORMAT, "about": json.dumps(about)})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str], device: Any = "cpu") -> Any:
    """Read what `save` wrote.

    Parameters
    ----------
    path : str or path
        The file.
    device : torch.device or str
        Where its tensors go; what is entropy-coded can be on the CPU alone.

    Returns
    -------
    QuantizedTensor, SparseSpectralTensor or SpectralLinear
        As it was.

    Raises
    ------
    ArgumentError
        If the file is not one of `save`'s, or its header and its tensors do not fit together. There is no checksum:
        other numbers in the tensors are read as they are.
    FileNotFoundError, OSError
        If it cannot be read.
    """
    _safetensors()
    library: Any = importlib.import_module("safetensors")
    if not Path(path).is_file():
        raise FileNotFoundError(f"path {str(path)!r} is no file")
    try:
        with library.safe_open(str(path), framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ArgumentError(f"path {str(path)!r} is of the format {metadata.get('format')!r}, not {FORMAT!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
        return _made(json.loads(metadata["about"]), tensors)
    except (library.SafetensorError, *_WRONG) as error:
        if isinstance(error, ArgumentError) and str(path) in str(error):
            raise
        raise ArgumentError(f"path {str(path)!r} is damaged: {error}") from None


def _parts(what: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an object's tensors and the numbers that say what they are."""
    if isinstance(what, QuantizedTensor):
        return dict(what.parts), {
            "kind": "quantized",
            "shape": what.shape,
            "dtype": str(what.dtype)[6:],
            "scheme": what.scheme,
            "settings": what.settings,
        }
    if isinstance(what, SparseSpectralTensor):
        index = what.index
        tensors = {"counts": index.counts, "codes": index.codes, "sizes": index.sizes}
        about: dict[str, Any] = {
            "kind": "sparse", "shape": what.shape, "dtype": str(what.dtype)[6:], "panel": index.panel,
            "bitmap": index.bitmap, "retained_energy": what.retained_energy,
        }  # fmt: skip
        if isinstance(what.values, QuantizedTensor):
            parts, about["values"] = _parts(what.values)
            return {**tensors, **{f"values.{name}": part for name, part in parts.items()}}, about
        return {**tensors, "values": torch.view_as_real(what.values.detach().resolve_conj())}, about
    if isinstance(what, SpectralLinear):
        tensors, weight = _parts(what.weight)
        tensors = {f"weight.{name}": part for name, part in tensors.items()}
        if what.bias is not None:
            tensors["bias"] = what.bias
        report = None if what.report is None else vars(what.report)
        return tensors, {"kind": "linear", "weight": weight, "report": report}
    raise ArgumentTypeError(
        f"what must be a QuantizedTensor, SparseSpectralTensor or SpectralLinear, got {type(what).__name__}"
    )


def _made(about: dict[str, Any], tensors: dict[str, Any]) -> Any:
    """Return the object that tensors and numbers describe."""
    if about["kind"] == "linear":
        weight = _made(about["weight"], _under("weight.", tensors))
        return SpectralLinear(
            weight, tensors.get("bias"), None if about["report"] is None else SpectralReport(**about["report"])
        )
    one_of(about["kind"], "kind", ("quantized", "sparse"))
    shape, dtype = tuple(map(int, about["shape"])), DTYPES[about["dtype"]]
    if about["kind"] == "quantized":
        settings = {name: int(number) for name, number in about["settings"].items()}
        return QuantizedTensor(shape, dtype, about["scheme"], settings, tensors)
    last = shape[-1] if dtype.is_complex else shape[-1] // 2 + 1
    index = SpectralIndex(
        (math.prod(shape[:-1]), last), int(about["panel"]), tensors["counts"], tensors["codes"], tensors["sizes"],
        bool(about["bitmap"]),
    )  # fmt: skip
    if "values" in about:
        values = _made(about["values"], _under("values.", tensors))
    else:
        values = torch.view_as_complex(tensors["values"])
    return SparseSpectralTensor(shape, dtype, index, values, about["retained_energy"])


def _under(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name[len(prefix) :]: part for name, part in tensors.items() if name.startswith(prefix)}


def _safetensors() -> Any:
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError:
        raise BackendUnavailable("files need the library safetensors: pip install 'adaptive-compute[nn]'") from None
