"""How exact is exact: the tolerance that conformance asks of each dtype."""

from __future__ import annotations

UNIT_ROUNDOFF = {
    "float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53,
    "complex64": 2.0**-24, "complex128": 2.0**-53,
}  # fmt: skip

# Relative L2 error that any kernel must reach to be a candidate when the caller gives no tol: a small multiple of the
# unit roundoff, which sums and transforms of any size that fits a machine keep.
_CONFORMANCE = {
    "float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-6, "float64": 1e-14, "complex64": 2e-6, "complex128": 1e-14,
}  # fmt: skip

REAL_OF = {"complex64": "float32", "complex128": "float64", "complex256": "float128"}
COMPLEX_OF = {real: cplx for cplx, real in REAL_OF.items()}

# The next lower precision that bulk work may be done in; bfloat16 has float32's range.
NARROWER = {"float64": "float32", "complex128": "complex64", "float32": "bfloat16"}


def conformance(dtype: str) -> float:
    """Return the relative L2 error that conformance allows for results of this dtype.

    Integers and booleans must be exact; extended precision is held to float64's tolerance.
    """
    if dtype.startswith(("int", "uint", "bool")):
        return 0.0
    return _CONFORMANCE.get(dtype, 1e-14)
