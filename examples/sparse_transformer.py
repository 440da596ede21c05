"""A small Transformers model with a sliding window: the same logits and tokens, and attention that skips tiles.

The model is built from its configuration, with random weights: nothing is downloaded.
"""

from __future__ import annotations

import statistics
import time

import torch
import transformers
from picture import axes, output

from adaptive_compute.integrations import transformers as adaptive

LENGTHS, WINDOW = (512, 1024, 2048, 4096), 128


def model() -> transformers.MistralForCausalLM:
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=257, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=WINDOW, max_position_embeddings=8192,
        bos_token_id=None, eos_token_id=None, pad_token_id=256,
    )  # fmt: skip
    return transformers.MistralForCausalLM(config).eval()


def main() -> None:
    path = output(__doc__, "sparse_transformer.png")
    adaptive.register()
    net, times = model(), {"sdpa": [], "adaptive": []}
    for length in LENGTHS:
        text = torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(length))
        logits = {}
        rounds = {name: [] for name in times}
        for _ in range(4):  # the first warms up
            for name in times:
                net.set_attn_implementation(name)
                start = time.perf_counter()
                with torch.no_grad():
                    logits[name] = net(text, use_cache=False, logits_to_keep=64).logits
                rounds[name].append(time.perf_counter() - start)
        for name in times:
            times[name].append(statistics.median(rounds[name][1:]))
        difference = (logits["sdpa"] - logits["adaptive"]).abs().max().item()
        assert difference < 1e-5
        print(
            f"{length} tokens: sdpa {times['sdpa'][-1] * 1e3:.0f} ms, adaptive {times['adaptive'][-1] * 1e3:.0f} ms, "
            f"logits differ by {difference:.1e}"
        )
    prompt = torch.arange(40)[None]
    tokens = []
    for name in times:
        net.set_attn_implementation(name)
        tokens.append(net.generate(prompt, max_new_tokens=20, do_sample=False))
    assert torch.equal(*tokens)

    figure, (axis,) = axes(1, 6, 4)
    for name, style in (("sdpa", "o--"), ("adaptive", "s-")):
        axis.loglog(LENGTHS, times[name], style, label=name)
    axis.set(title=f"one forward pass, window of {WINDOW}", xlabel="tokens", ylabel="s")
    axis.legend()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
