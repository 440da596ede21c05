"""Hugging Face Transformers: this library's attention and masks under the name "adaptive".

    from adaptive_compute.integrations import transformers as adaptive_transformers

    adaptive_transformers.register()
    model.set_attn_implementation("adaptive")

Transformers asks two functions of an attention implementation [1]_: one makes the mask, once for a forward pass; one
attends, in each layer. The mask is made as a rule (causal, sliding window), so that tiles which it drops cost nothing
and no array of length squared is held; padding, packed sequences and patterns of the user's own become boolean arrays.
A layer that needs a mask and gets none raises, because attention without one would see the future.

References
----------
.. [1] https://huggingface.co/docs/transformers/attention_interface
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

from ..core.errors import ArgumentError, DtypeError
from ..core.masks import Causal, Window
from ..core.operations.attention import attention as _attention
from ..core.topology import Mask, Spans, span

NAME = "adaptive"


def register() -> None:
    """Make ``attn_implementation="adaptive"`` known to Transformers; a second call does nothing new.

    Notes
    -----
    Dropout of attention weights, soft capping of scores and the weights themselves (``output_attentions``) are not
    offered: a model that asks for one of them raises and says so. Attention sinks (gpt-oss) and relative position
    biases (T5) are.

    Examples
    --------
    >>> import pytest, torch
    >>> transformers = pytest.importorskip("transformers")
    >>> from adaptive_compute.integrations.transformers import register
    >>> register()
    >>> config = transformers.LlamaConfig(
    ...     vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    ... )
    >>> config._attn_implementation = "adaptive"
    >>> model = transformers.LlamaForCausalLM(config).eval()
    >>> model(torch.arange(8)[None]).logits.shape
    torch.Size([1, 8, 64])
    """
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)


@dataclass(frozen=True)
class _Band(Mask):
    """Query i sees the keys j with ``low <= j - i <= high``: causal with a window, beside a cache."""

    low: int
    high: int

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return (j - i >= self.low) & (j - i <= self.high)

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        some = span(max(i0 + self.low, 0), i1 - 1 + self.high + 1, lk)
        return some, span(max(i1 - 1 + self.low, 0), i0 + self.high + 1, lk)


@dataclass(frozen=True)
class Rule:
    """A mask that needs no array: which of the keys to use, and the rule over those (None: every one is seen)."""

    first: int
    last: int
    mask: Mask | None


class RuleTensor(torch.Tensor):  # type: ignore[misc]
    """A boolean mask that is written out only where a model's own code computes with it.

    To a model it is a tensor of shape (batch, 1, queries, keys), True = keep; to ``attention`` it carries the rule.
    """

    rule: Rule
    build: Callable[[], torch.Tensor]

    @staticmethod
    def __new__(cls, rule: Rule, build: Callable[[], torch.Tensor], shape: tuple[int, ...], device: Any) -> RuleTensor:
        made = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bool, device=device)
        made.rule, made.build = rule, build
        return made

    def __repr__(self) -> str:
        return f"RuleTensor({self.rule}, shape={tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def written(x: Any) -> Any:
            return x.build() if isinstance(x, cls) else x

        args, kwargs = torch.utils._pytree.tree_map(written, (args, kwargs or {}))
        return func(*args, **kwargs)


# The functions that Transformers composes masks of, known by their code: the closures around it hold the numbers.
_CODES = {
    masking_utils.sliding_window_overlay(1).__code__: "window",
    masking_utils.sliding_window_bidirectional_overlay(1).__code__: "band",
    masking_utils.and_masks().__code__: "and",
    masking_utils.causal_mask_function.__code__: "causal",
    masking_utils.bidirectional_mask_function.__code__: "all",
}


def _closed_over(function: Callable, name: str) -> Any:
    closure: Any = function.__closure__
    return closure[function.__code__.co_freevars.index(name)].cell_contents


def _limits(function: Callable) -> tuple[int | None, int | None] | None:
    """Return the least and the greatest key position minus query position that a mask function keeps.

    None in a place: no limit on that side. None alone: this function is not of that form.
    """
    kind = _CODES.get(getattr(function, "__code__", None))
    if kind == "causal":
        return None, 0
    if kind == "all":
        return None, None
    if kind == "window":
        return 1 - _closed_over(function, "sliding_window"), None
    if kind == "band":
        side = _closed_over(function, "sliding_window")
        return -side, side
    if kind != "and":
        return None
    low: int | None = None
    high: int | None = None
    for part in _closed_over(function, "mask_functions"):
        found = _limits(part)
        if found is None:
            return None
        low = found[0] if low is None else low if found[0] is None else max(low, found[0])
        high = found[1] if high is None else high if found[1] is None else min(high, found[1])
    return low, high


def _rule(low: int | None, high: int | None, lq: int, lk: int, shift: int) -> Rule:
    """Return the rule for queries at the key positions ``shift``, ``shift + 1``, ...; keys that none sees go unused."""
    low = None if low is None or shift + lq - 1 + low <= 0 else low
    high = None if high is None or shift + high >= lk - 1 else high
    first = 0 if low is None else max(shift + low, 0)
    last = lk if high is None else min(shift + lq + high, lk)
    shift -= first
    if lq == 1 or (low is None and high is None):
        return Rule(first, last, None)
    if shift == 0 and high == 0:
        return Rule(first, last, Causal() if low is None else Causal() & Window(1 - low))
    if shift == last - first - lq and high == 0 and low is None:
        return Rule(first, last, Causal(align="bottom-right"))
    if shift == 0 and low is not None and high == -low:
        return Rule(first, last, Window(1 - low))
    lowest = -lk - lq if low is None else shift + low
    return Rule(first, last, _Band(lowest, lk + lq if high is None else shift + high))


def mask(
    batch_size: int, q_length: int, kv_length: int, q_offset: Any = 0, kv_offset: int = 0,
    mask_function: Callable = masking_utils.causal_mask_function, attention_mask: torch.Tensor | None = None,
    use_vmap: bool = False, device: Any = "cpu", **others: Any,
) -> torch.Tensor:  # fmt: skip
    """Make the mask of one forward pass, for Transformers' ``AttentionMaskInterface``.

    Parameters
    ----------
    batch_size, q_length, kv_length : int
        Sizes of the mask.
    q_offset, kv_offset : int
        Positions of the first query and the first key.
    mask_function : callable
        Which query position sees which key position, as Transformers composes it.
    attention_mask : tensor, shape (batch, positions), optional
        Padding: True (or 1) = a real position.
    use_vmap : bool
        Whether the function takes one position at a time.
    device : torch.device or str
        Where the mask is used.
    **others
        What other implementations need; not used.

    Returns
    -------
    tensor of bool, shape (batch, 1, q_length, kv_length)
        Never None. Where a rule says it all, its values are not written out.
    """

    def build(padding: torch.Tensor | None = None) -> torch.Tensor:
        return masking_utils.sdpa_mask(
            batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset,
            mask_function=mask_function, attention_mask=padding, use_vmap=use_vmap, device=device,
            allow_is_causal_skip=False, allow_is_bidirectional_skip=False,
        )  # fmt: skip

    shape = (batch_size, 1, q_length, kv_length)
    if torch.compiler.is_compiling() or isinstance(q_offset, torch.Tensor) or use_vmap:
        return build(attention_mask).expand(
            shape
        )  # offsets in a tensor (a static cache) cannot be read while compiling
    limits = _limits(mask_function)
    if attention_mask is not None:
        seen: Any = masking_utils.prepare_padding_mask(attention_mask, kv_length, kv_offset)
        if limits is None or not bool(seen[:, kv_offset : kv_offset + kv_length].all()):
            return build(attention_mask).expand(shape)
    if limits is None or q_offset < kv_offset or (limits[1] == 0 and q_offset - kv_offset + q_length > kv_length):
        return build(attention_mask).expand(shape)
    return RuleTensor(_rule(*limits, q_length, kv_length, q_offset - kv_offset), build, shape, device)


_REFUSED = {
    "softcap": "soft capping of scores",
    "output_attentions": "returning the attention weights",
    "head_mask": "head masks",
}


def attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
    is_causal: bool | None = None, position_bias: torch.Tensor | None = None, s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attend, for Transformers' ``AttentionInterface``.

    Parameters
    ----------
    module : torch.nn.Module
        The layer. Its ``is_causal`` says whether it needs a mask.
    query : tensor, shape (batch, heads, Lq, D)
    key, value : tensor, shape (batch, key heads, Lk, D)
        The number of key heads divides that of the heads.
    attention_mask : tensor, shape (batch or 1, heads or 1, Lq, Lk), optional
        Of booleans, True = keep, or of numbers to add to the scores.
    dropout : float
        Must be 0: dropout of attention weights is not offered.
    scaling : float, optional
        Factor of the scores; default ``1 / sqrt(D)``.
    is_causal : bool, optional
        Overrides the layer's own.
    position_bias : tensor, shape (batch or 1, heads, Lq, Lk), optional
        Added to the scaled scores (T5).
    s_aux : tensor, shape (heads,), optional
        Sinks: the score of a further key whose value is zero (gpt-oss).
    **others
        What other implementations need; one that would change the result must be empty.

    Returns
    -------
    out : tensor, shape (batch, Lq, heads, D)
    weights : None

    Raises
    ------
    ArgumentError
        If the layer is causal and no mask came, or something is asked that is not offered.
    """
    for name, what in _REFUSED.items():
        if others.get(name) is not None and others[name] is not False:
            raise ArgumentError(f"{name}={others[name]!r}: the adaptive attention does not offer {what}; use 'eager'")
    if dropout:
        raise ArgumentError(
            f"dropout={dropout!r}: the adaptive attention does not drop weights; set attention_dropout=0 in the config"
        )
    lq, lk = query.shape[-2], key.shape[-2]
    bias, array = position_bias, None
    rule: Mask | None = None
    if attention_mask is None:
        wanted = getattr(module, "is_causal", True) if is_causal is None else is_causal
        # Asked for by the caller, and not merely a property of the layer: torch's meaning, which needs equal lengths.
        if wanted and is_causal and lq == lk:
            rule = Causal()
        elif wanted:
            raise ArgumentError(
                f"attention_mask is None, but {type(module).__name__} is causal ({lq} queries, {lk} keys): without a "
                "mask each position would see the future. Call adaptive_compute.integrations.transformers.register() "
                "before the model is built or switched, or pass a mask"
            )
    elif isinstance(attention_mask, RuleTensor) and attention_mask.shape[-2:] == (lq, lk):
        given = attention_mask.rule
        rule = given.mask
        if (given.first, given.last) != (0, lk):
            key, value = key[..., given.first : given.last, :], value[..., given.first : given.last, :]
            bias = None if bias is None else bias[..., given.first : given.last]
    elif attention_mask.dtype == torch.bool:
        array = attention_mask
    elif attention_mask.is_floating_point():
        bias = attention_mask if bias is None else bias + attention_mask
    else:
        raise DtypeError(
            f"attention_mask has dtype {attention_mask.dtype}; use torch.bool (True = keep) or numbers to add to scores"
        )
    batch = torch.broadcast_shapes(query.shape[:1], key.shape[:1])[0]  # learned queries come once for the whole batch
    query, key, value = (x if x.shape[0] == batch else x.expand(batch, *x.shape[1:]) for x in (query, key, value))
    result = _attention(
        query, key, value, mask=rule if array is None else _plain(array), bias=None if bias is None else
        bias.to(query.dtype), scale=scaling, enable_gqa=key.shape[1] != query.shape[1], return_lse=s_aux is not None,
    )  # fmt: skip
    if s_aux is not None:
        out, lse = result
        result = out * torch.sigmoid(lse - s_aux.to(lse.dtype)[:, None]).to(out.dtype)[..., None]
    return result.transpose(1, 2).contiguous(), None


def _plain(array: torch.Tensor) -> torch.Tensor:
    """Return a mask without a rule's class, written out."""
    return array.build() if isinstance(array, RuleTensor) else array
