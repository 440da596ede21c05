"""Transformers models under "adaptive" against the same models under "eager": Transformers' own plain formulas."""

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'adaptive-compute[torch]'")
transformers = pytest.importorskip(
    "transformers", reason="needs Transformers: pip install 'adaptive-compute[transformers]'"
)

from transformers import masking_utils  # noqa: E402

import adaptive_compute as ac  # noqa: E402
from adaptive_compute.core.errors import ArgumentError, DtypeError  # noqa: E402
from adaptive_compute.integrations import transformers as adaptive  # noqa: E402

TOLERANCE = 1e-5
LENGTH = 23
PLAIN: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WIDE = {k: v for k, v in PLAIN.items() if k != "num_key_value_heads"}
CAUSAL = {
    "grouped heads": ("LlamaForCausalLM", "LlamaConfig", PLAIN),
    "one key head": ("LlamaForCausalLM", "LlamaConfig", PLAIN | {"num_key_value_heads": 1}),
    "window": ("MistralForCausalLM", "MistralConfig", PLAIN | {"sliding_window": 7}),
    "window in some layers": (
        "Gemma3ForCausalLM", "Gemma3TextConfig",
        PLAIN | {"head_dim": 8, "sliding_window": 8, "sliding_window_pattern": 2},
    ),
    "sinks": (
        "GptOssForCausalLM", "GptOssConfig",
        PLAIN | {"head_dim": 8, "sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
    "chunks": (
        "Llama4ForCausalLM", "Llama4TextConfig",
        PLAIN | {"head_dim": 8, "attention_chunk_size": 8, "num_local_experts": 2, "intermediate_size_mlp": 48},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _registered():
    adaptive.register()


def _build(model: str, config: str, values: dict) -> Any:
    torch.manual_seed(0)
    made = getattr(transformers, config)(**copy.deepcopy(values))
    made._attn_implementation = "eager"
    return getattr(transformers, model)(made).eval()


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request):
    return _build(*CAUSAL[request.param])


def _text(padding: str = "none", count: int = 3, length: int = LENGTH) -> tuple[Any, Any]:
    ids = torch.from_numpy(np.random.default_rng(1).integers(3, 97, (count, length)))
    seen = torch.ones_like(ids)
    if padding == "left":
        seen[1, :5] = 0
    if padding == "right":
        seen[1, -5:] = 0
    return ids * seen, seen


def _both(model: Any, run: Any) -> tuple[Any, Any]:
    results = []
    for name in ("eager", "adaptive"):
        model.set_attn_implementation(name)
        with torch.no_grad():
            results.append(run())
    return results[0], results[1]


def _close(one: Any, other: Any) -> None:
    assert torch.isfinite(other).all()
    assert (one - other).abs().max() <= TOLERANCE * max(1.0, one.abs().max().item())


@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_a_causal_model_gives_the_same_logits(causal, padding):
    ids, seen = _text(padding)
    one, other = _both(causal, lambda: causal(ids, attention_mask=seen).logits)
    _close(one[seen.bool()], other[seen.bool()])


@pytest.mark.parametrize("padding", ["none", "left"])
def test_generation_with_a_cache_gives_the_same_tokens(causal, padding):
    ids, seen = _text(padding)
    one, other = _both(
        causal,
        lambda: causal.generate(ids, attention_mask=seen, max_new_tokens=12, min_new_tokens=12, do_sample=False),
    )
    assert one.shape[1] == LENGTH + 12
    assert torch.equal(one, other)


def test_a_prompt_that_comes_in_pieces_gives_the_same_logits(causal):
    ids, _ = _text(count=1)

    def pieces() -> Any:
        cache, logits = transformers.DynamicCache(config=causal.config), []
        for first, last in ((0, 9), (9, 17), (17, 18), (18, LENGTH)):
            logits.append(causal(ids[:, first:last], cache=cache, use_cache=True).logits)
        return torch.cat(logits, 1)

    one, other = _both(causal, pieces)
    _close(one, other)
    _close(causal(ids).logits.detach(), other)


def test_a_static_cache_hides_the_places_not_yet_written(causal):
    ids, seen = _text(count=2)
    one, other = _both(
        causal,
        lambda: causal.generate(
            ids, attention_mask=seen, max_new_tokens=6, min_new_tokens=6, do_sample=False,
            cache_implementation="static", disable_compile=True,
        ),
    )  # fmt: skip
    assert torch.equal(one, other)


def test_no_position_sees_the_future(causal):
    causal.set_attn_implementation("adaptive")
    ids, _ = _text()
    with torch.no_grad():
        whole = causal(ids).logits
        changed = ids.clone()
        changed[:, 12:] = torch.flip(ids[:, 12:], [1]) % 90 + 3
        other = causal(changed).logits
    _close(whole[:, :12], other[:, :12])
    assert (whole[:, 12:] - other[:, 12:]).abs().max() > 1e-3


def test_gradients_agree(causal):
    ids, seen = _text("left")
    known = seen.bool() & (seen.roll(1, 1) == 1)  # what padding itself predicts is no one's result
    grads = []
    for name in ("eager", "adaptive"):
        causal.set_attn_implementation(name)
        causal.zero_grad()
        causal(ids, attention_mask=seen, labels=torch.where(known, ids, -100)).loss.backward()
        grads.append(torch.cat([p.grad.flatten() for p in causal.parameters() if p.grad is not None]))
    assert grads[0].norm() > 0
    assert (grads[0] - grads[1]).norm() <= 1e-5 * grads[0].norm()


@pytest.mark.parametrize("padding", ["none", "right"])
@pytest.mark.parametrize(
    ("model", "config", "values"),
    [
        ("BertModel", "BertConfig", WIDE),
        ("ModernBertModel", "ModernBertConfig", WIDE | {"local_attention": 8}),
    ],
)
def test_an_encoder_gives_the_same_states(model, config, values, padding):
    made = _build(model, config, values)
    ids, seen = _text(padding)
    one, other = _both(made, lambda: made(ids, attention_mask=seen).last_hidden_state)
    _close(one[seen.bool()], other[seen.bool()])


@pytest.mark.parametrize("padding", ["none", "right"])
def test_an_encoder_and_decoder_with_position_biases(padding):
    made = _build(
        "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
         "decoder_start_token_id": 0},
    )  # fmt: skip
    ids, seen = _text(padding)
    start = _text(length=9)[0]
    one, other = _both(made, lambda: made(ids, attention_mask=seen, decoder_input_ids=start).logits)
    _close(one, other)
    one, other = _both(made, lambda: made.generate(ids, attention_mask=seen, max_new_tokens=8, do_sample=False))
    assert torch.equal(one, other)


def test_packed_sequences_do_not_see_each_other():
    model = _build(*CAUSAL["grouped heads"])
    ids, _ = _text(count=1)
    places = torch.cat([torch.arange(9), torch.arange(LENGTH - 9)])[None]
    one, other = _both(model, lambda: model(ids, position_ids=places, use_cache=False).logits)
    _close(one, other)
    with torch.no_grad():
        _close(model(ids[:, 9:]).logits, other[:, 9:])


@pytest.mark.parametrize("window", [None, 1, 5, 40])
@pytest.mark.parametrize(("lq", "lk", "q_offset", "kv_offset"), [
    (7, 7, 0, 0), (1, 9, 8, 0), (5, 12, 7, 0), (5, 12, 10, 3), (4, 20, 0, 0), (6, 9, 3, 2), (1, 20, 5, 0),
])  # fmt: skip
@pytest.mark.parametrize("two_sided", [False, True])
def test_every_rule_keeps_what_its_function_keeps(window, lq, lk, q_offset, kv_offset, two_sided):
    if two_sided:
        function = (
            masking_utils.bidirectional_mask_function if window is None
            else masking_utils.sliding_window_bidirectional_mask_function(window)
        )  # fmt: skip
    else:
        function = (
            masking_utils.causal_mask_function if window is None
            else masking_utils.sliding_window_causal_mask_function(window)
        )  # fmt: skip
    made = adaptive.mask(2, lq, lk, q_offset, kv_offset, function)
    assert made.shape == (2, 1, lq, lk)
    assert made.dtype == torch.bool
    i, j = np.arange(lq)[:, None] + q_offset, np.arange(lk) + kv_offset
    wanted = np.ones((lq, lk), bool) if two_sided else j <= i
    if window is not None:
        wanted &= abs(i - j) <= window if two_sided else i - j < window
    assert np.array_equal(np.asarray(made[0, 0]), wanted)  # what a model's own code sees
    assert np.array_equal((made & True)[1, 0].numpy(), wanted)
    if isinstance(made, adaptive.RuleTensor):
        rule, kept = made.rule, np.zeros((lq, lk), bool)
        part = slice(rule.first, rule.last)
        n = rule.last - rule.first
        kept[:, part] = True if rule.mask is None else rule.mask.keep(np.arange(lq)[:, None], np.arange(n), lq, n)
        assert np.array_equal(kept, wanted)
        if rule.mask is not None:  # the intervals that its tiles are made of
            tiles = rule.mask.tiles(lq, n, (8, 8))
            assert tiles.visited == sum(
                kept[a : a + 8, part][:, b : b + 8].any() for a in range(0, lq, 8) for b in range(0, n, 8)
            )


def test_a_rule_holds_no_array():
    made = adaptive.mask(1, 100_000, 100_000, 0, 0, masking_utils.sliding_window_causal_mask_function(128))
    assert isinstance(made, adaptive.RuleTensor)
    assert made.rule.mask == ac.Causal() & ac.Window(128)
    assert "Window" in repr(made)


class _Layer(torch.nn.Module):
    is_causal = True


def _qkv(heads: int = 2, lq: int = 4, lk: int = 4) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, heads, n, 8, generator=generator) for n in (lq, lk, lk))  # type: ignore[return-value]


@pytest.mark.parametrize(("lq", "lk"), [(4, 4), (1, 4), (2, 4)])
def test_a_mask_that_is_missing_raises(lq, lk):
    with pytest.raises(ArgumentError, match="attention_mask is None, but _Layer is causal"):
        adaptive.attention(_Layer(), *_qkv(lq=lq, lk=lk), None)


def test_a_causal_call_by_the_caller_needs_no_mask():
    q, k, v = _qkv()
    out, weights = adaptive.attention(_Layer(), q, k, v, None, is_causal=True)
    assert weights is None
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    _close(expected.transpose(1, 2), out.double())
    with pytest.raises(ArgumentError, match="4 keys"):
        adaptive.attention(_Layer(), *_qkv(lq=2), None, is_causal=True)


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"dropout": 0.1}, "dropout=0.1.*attention_dropout"),
        ({"softcap": 30.0}, "softcap=30.0"),
        ({"output_attentions": True}, "attention weights"),
    ],
)
def test_what_is_not_offered_raises(keywords, match):
    with pytest.raises(ArgumentError, match=match):
        adaptive.attention(_Layer(), *_qkv(), torch.ones(1, 1, 4, 4, dtype=torch.bool), **keywords)


def test_a_mask_of_whole_numbers_is_refused():
    with pytest.raises(DtypeError, match=r"attention_mask has dtype torch\.int64"):
        adaptive.attention(_Layer(), *_qkv(), torch.ones(1, 1, 4, 4, dtype=torch.int64))


def test_scores_to_add_and_learned_queries():
    q, k, v = _qkv()
    k, v = k.repeat(3, 1, 1, 1), torch.cat([v, 2 * v, 3 * v])
    scores = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    out, _ = adaptive.attention(_Layer(), q, k, v, scores)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.double().expand(3, -1, -1, -1), k.double(), v.double(), attn_mask=scores.double()
    )
    _close(expected.transpose(1, 2), out.double())
