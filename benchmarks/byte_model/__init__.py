"""A byte model from spectral layers beside a Transformer of equal size, data, steps and schedule: WikiText-2.

    python -m benchmarks.byte_model --data FOLDER --model spectral transformer --seeds 0 1 2 --save

Both are 6 blocks of a mixer and a feed-forward part over 256 channels; only the mixer differs: ``nn.GatedConvolution``
or causal self-attention (torch's fused one, rotary positions). Scores are bits per byte of the whole test file, see
``score.py`` for the rule. Results are written after every seed, so that a run that is cut short still says something.
"""
