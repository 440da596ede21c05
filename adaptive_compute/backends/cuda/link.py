"""The link between the host and a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.array import kind_named


def upload(host: Any, index: int) -> Any:
    """Copy a host array to a GPU as a torch tensor."""
    tensor = kind_named("torch").from_numpy(host) if isinstance(host, np.ndarray) else host.detach()
    return tensor.resolve_conj().resolve_neg().contiguous().to(f"cuda:{index}")


def download(tensor: Any) -> Any:
    """Copy a tensor to the host."""
    host = tensor.detach().resolve_conj().resolve_neg().cpu()
    return host if str(host.dtype) == "torch.bfloat16" else host.numpy()


def release() -> None:
    """Give back pinned memory."""
