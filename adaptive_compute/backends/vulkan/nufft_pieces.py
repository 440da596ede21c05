"""NUFFTs on host arrays whose strengths or values exceed one buffer: some transforms at a time, at the same points."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...core.operation import Request
from ...core.operations.nufft_rule import NufftParams
from ..base import Plan


def pieces_of(request: Request, largest: int) -> list[tuple[Request, slice]]:
    """Return requests of fewer transforms, and which ones each takes; none where they cannot be told apart."""
    p: NufftParams = request.params
    operands = [o for o in request.operands if o is not None]
    one = max(operands[0].nbytes, request.operation.result(request)[0].nbytes) // p.n_trans
    several = largest // one if one else 0
    if p.n_trans == 1 or not several or any(o.device != "cpu" for o in operands):
        return []
    inner = operands[0].shape[-p.dim :] if p.type == 2 else operands[0].shape[-1:]
    made = []
    for start in range(0, p.n_trans, several):
        count = min(several, p.n_trans - start)
        data = operands[0]._replace(shape=(count, *inner))
        smaller = (data, *request.operands[1:])
        piece = Request(request.operation, smaller, p._replace(n_trans=count), request.tol, request.threads)
        made.append((piece, slice(start, start + count)))
    return made


class NufftPieces(Plan):
    """One plan for each number of transforms that is taken at a time."""

    def __init__(self, request: Request, largest: int, make: Callable[[Request], Plan]) -> None:
        self._pieces = pieces_of(request, largest)
        (self.result,) = request.operation.result(request)
        self._n_trans = request.params.n_trans
        self._plans = {piece: make(piece) for piece in dict.fromkeys(piece for piece, _ in self._pieces)}
        self.nbytes = sum(plan.nbytes for plan in self._plans.values())

    def through_host(self, data: np.ndarray, *coordinates: np.ndarray) -> np.ndarray:
        """Compute on NumPy arrays, some transforms at a time."""
        result = np.empty((self._n_trans, math.prod(self.result.shape) // self._n_trans), self.result.dtype)
        rows = data.reshape(self._n_trans, -1)
        for piece, some in self._pieces:
            run = self._plans[piece].through_host
            assert run is not None
            shape = piece.operands[0].shape if piece.operands[0] is not None else ()
            result[some] = run(rows[some].reshape(shape), *coordinates).reshape(some.stop - some.start, -1)
        return result.reshape(self.result.shape)

    def close(self) -> None:
        for plan in self._plans.values():
            plan.close()
