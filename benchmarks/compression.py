"""What compression costs and saves: quantisers, a product with a spectral weight too large to make, a trained model.

    python -m benchmarks.compression [--only quantizers product model cuda] [--data FOLDER] [--save | --output FILE]

The product is measured in a process of its own that loads the weight from a file: its peak memory is the kernel's own
count (VmHWM), the interpreter and all libraries included. The model needs ``--data``, a folder as the byte model's; on
a CPU a small one is trained, on a GPU (``--device cuda:0``) that of benchmarks/byte_model.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptive_compute import nn
from benchmarks.record import machine

SIDE, SHARE = 65_536, 0.01
VECTORS = (1, 16, 64)
COLUMNS = 48  # of the dense matrix, made in float64, with which the product is compared
BLOCK = 1024  # columns of a dense matrix that are timed
TINY = {"dim": 96, "layers": 2}
BATCH, LENGTH, SCORED = 8, 128, 40_000


def say(text: str) -> None:
    print(text, flush=True)


# ---- quantisers ---------------------------------------------------------------------------------------------------


def quantizers() -> list[dict[str, Any]]:
    """Quantise a million complex Gaussian values."""
    w = torch.randn(256, 4096, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    made: dict[str, Any] = {}
    for bits, split in ((8, (3, 5)), (12, (5, 7)), (16, (8, 8))):
        made[f"{bits} bits, polar {split[0]} + {split[1]}"] = nn.PolarQuantizer(bits, split=split)
        made[f"{bits} bits, polar, one scale for all"] = nn.PolarQuantizer(bits, block=w.numel())
        made[f"{bits} bits, entropy-coded"] = nn.PolarQuantizer(bits, entropy_coded=True)
    made["int8"] = nn.Int8Quantizer()
    found = []
    for name, quantizer in made.items():
        begin = time.perf_counter()
        small = quantizer.quantize(w)
        middle = time.perf_counter()
        back = small.dequantize()
        row = {
            "quantizer": name, "bits_per_value": small.bits_per_value, "error": error_of(back, w),
            "quantize_seconds": middle - begin, "dequantize_seconds": time.perf_counter() - middle,
        }  # fmt: skip
        found.append(row)
        say(f"{name}: {row['error']:.4%} at {small.bits_per_value:.4f} bits per complex value")
    return found


def error_of(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the relative RMS error."""
    wide = torch.complex128 if exact.is_complex() else torch.float64
    return float((found.to(wide) - exact.to(wide)).norm() / exact.to(wide).norm())


# ---- the product --------------------------------------------------------------------------------------------------


def make(path: str) -> None:
    """Write a random spectral weight."""
    random = torch.Generator().manual_seed(0)
    last = SIDE // 2 + 1
    places = torch.randint(0, SIDE * last, (round(SHARE * SIDE * last * 1.005),), generator=random).unique()
    row, column = places // last, places % last
    places = places[((column > 0) & (column < last - 1)) | (row <= SIDE // 2)]  # of mirrored ones, the first
    values = torch.randn(len(places), dtype=torch.complex64, generator=random)
    weight = nn.SparseSpectralTensor.from_spectrum((SIDE, SIDE), places, values)
    nn.save(weight, path)
    nn.save(weight.quantize(nn.Int8Quantizer(block=4096)), path + ".int8")
    print(json.dumps({"kept": weight.kept, "nbytes": weight.nbytes, "index_nbytes": weight.index.nbytes}))


def vectors(count: int) -> torch.Tensor:
    return torch.randn(count, SIDE, generator=torch.Generator().manual_seed(1))


def peak() -> float:
    """Return this process's largest resident memory so far, in MB of a million bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def multiply(path: str, count: int, gradient: bool) -> None:
    """Multiply as the first thing that a process does."""
    before = peak()
    weight = nn.load(path)
    x = vectors(count).requires_grad_(gradient)
    seconds = []
    for _ in range(3 if not gradient else 1):
        y = None
        begin = time.perf_counter()
        with torch.set_grad_enabled(gradient):
            y = nn.block_streaming_matmul(x, weight, BLOCK)
        if gradient:
            y.backward(y.detach())
        seconds.append(time.perf_counter() - begin)
        if len(seconds) == 1:
            first = peak()
    if not gradient:
        torch.save({"y": y}, path + f".{count}")
    print(json.dumps({
        "vectors": count, "gradient": gradient, "seconds": min(seconds), "first_seconds": seconds[0],
        "peak_MB": peak(), "peak_MB_first": first, "peak_MB_imports": before,
    }))  # fmt: skip


def compare(path: str, count: int) -> None:
    """Compare a product with dense columns of the weight, made one frequency at a time in float64."""
    import scipy.sparse

    weight = nn.load(path)
    last = SIDE // 2 + 1
    places = weight.index.places()
    values = weight.coefficients(0, len(places), torch.complex128).numpy()
    held = scipy.sparse.csr_matrix((values, ((places // last).numpy(), (places % last).numpy())), (SIDE, last))
    chosen = np.random.default_rng(2).choice(SIDE, COLUMNS, replace=False)
    frequency = np.arange(last)
    turn = np.exp(2j * np.pi * ((frequency[:, None] * chosen) % SIDE) / SIDE)
    turn *= np.where((frequency == 0) | (frequency == SIDE // 2), 1, 2)[:, None]
    dense = np.fft.ifft(held @ turn, axis=0).real / SIDE
    right = vectors(count).numpy().astype(np.float64) @ dense
    found = torch.load(path + f".{count}", weights_only=True)["y"].numpy()[:, chosen]
    print(json.dumps({"error": float(np.linalg.norm(found - right) / np.linalg.norm(right)), "columns": COLUMNS}))


def dense_seconds(count: int) -> float:
    """Return the time of a dense product: one block of columns, times as many as there are."""
    x, block = vectors(count), torch.randn(SIDE, BLOCK)
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        x @ block
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:]) * SIDE / BLOCK


def product() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/weight.safetensors"
        figures: dict[str, Any] = {"side": SIDE, **step("make", path)}
        say(f"weight of {SIDE} x {SIDE}, {figures['kept']:.2%} kept: {figures['nbytes'] / 1e6:.1f} MB, indices "
            f"{figures['index_nbytes'] / 1e6:.1f} MB")  # fmt: skip
        figures["products"] = []
        for count, kind in [*((count, "") for count in VECTORS), (VECTORS[-1], ".int8")]:
            file = path + kind
            row = step("multiply", file, str(count)) | step("compare", file, str(count))
            row |= {"coefficients": "int8" if kind else "complex64", "file_MB": Path(file).stat().st_size / 1e6}
            row["dense_seconds"] = dense_seconds(count)
            figures["products"].append(row)
            say(f"{count} vectors, {row['coefficients']}: {row['seconds']:.2f} s, dense {row['dense_seconds']:.2f} s; "
                f"peak memory {row['peak_MB_first']:.0f} MB, {row['peak_MB']:.0f} MB after three (imports alone "
                f"{row['peak_MB_imports']:.0f}); error {row['error']:.1e} on {COLUMNS} columns")  # fmt: skip
        row = figures["gradient"] = step("multiply", path, str(VECTORS[-1]), "gradient")
        say(f"{row['vectors']} vectors, forward and backward: {row['seconds']:.2f} s, peak {row['peak_MB']:.0f} MB")
    return figures


def step(*words: str) -> dict[str, Any]:
    """Do one step in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.compression", "--step", *words], capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode()[-2000:])
    return json.loads(done.stdout)


# ---- a trained model ----------------------------------------------------------------------------------------------


def trained(folder: str, device: str, steps: int) -> tuple[torch.nn.Module, torch.Tensor, int]:
    """Train on bytes: on a CPU a small Transformer; on a GPU the byte model of spectral layers."""
    from benchmarks.byte_model.data import load
    from benchmarks.byte_model.model import made
    from benchmarks.byte_model.train import Recipe, Trainer

    texts = load(folder)
    if device == "cpu":
        recipe = Recipe(steps or 500, BATCH, LENGTH, 3e-3, 40, dropout=0.0, compiled="none")
        network = made("transformer", **TINY, length=LENGTH, hidden=4 * TINY["dim"])
    else:
        recipe = Recipe(steps or 1500)
        network = made("spectral", length=recipe.length, dropout=recipe.dropout)
    trained_in = Trainer(network, texts["train"], recipe, 0, device).run(say)
    say(f"trained for {trained_in['steps']} steps in {trained_in['seconds']:.0f} s")
    network = copy.deepcopy(network).float().eval()  # without what torch.compile made
    return network, texts["test"], recipe.length


def model(folder: str, device: str, steps: int) -> dict[str, Any]:
    """Compress the matrices of a trained model, and score it again."""
    return compressed(*trained(folder, device, steps))


def compressed(network: torch.nn.Module, test: torch.Tensor, length: int = LENGTH) -> dict[str, Any]:
    """Return bits per byte, output errors and sizes of a trained byte model before and after compression.

    ``network`` maps bytes (batch, length) to scores (batch, length, 256); its ``torch.nn.Linear`` layers are
    compressed, one way after another, each from the weights as they were trained (but for those that make a
    convolution's filter, which are small). The whole is scored with the weights that the compressed ones stand for.
    """
    from benchmarks.byte_model.score import bits_per_byte

    scored = test[:SCORED]
    device = next(network.parameters()).device
    every = {name: part for name, part in network.named_modules() if isinstance(part, torch.nn.Linear)}
    linears = {name: part for name, part in every.items() if "filter" not in name}
    weights = sum(part.weight.numel() for part in linears.values())
    seen = inputs_of(network, linears, scored[: 8 * length].reshape(8, length).to(device))
    before = bits_per_byte(network, scored, length=length, stride=length // 2, batch=16)
    figures: dict[str, Any] = {
        "linear_layers": len(linears), "weights": weights, "bits_per_byte": before, "scored_bytes": len(scored),
        "rows": [],
    }  # fmt: skip
    say(f"as trained: {before:.4f} bits per byte, {len(linears)} matrices of {weights} weights at 32 bits each")
    for name, layer_of in ways().items():
        other, sizes, errors, outputs, energy = copy.deepcopy(network), 0, [], [], []
        for place, linear in linears.items():
            dense, layer, nbytes, retained = layer_of(linear)
            sizes += nbytes
            if retained is not None:
                energy.append(retained)
            with torch.no_grad():
                errors.append(error_of(dense, linear.weight))
                if place in seen:  # not where a layer gives its matrix to a kernel
                    outputs.append(error_of(layer(seen[place]), linear(seen[place])))
                other.get_submodule(place).weight.data.copy_(dense)
        row = {
            "way": name, "bits_per_weight": 8 * sizes / weights, "weight_error": statistics.mean(errors),
            "output_error": statistics.mean(outputs), "worst_output_error": max(outputs),
            "retained_energy": statistics.mean(energy) if energy else None,
            "bits_per_byte": bits_per_byte(other, scored, length=length, stride=length // 2, batch=16),
        }  # fmt: skip
        figures["rows"].append(row)
        kept = "" if row["retained_energy"] is None else f", {row['retained_energy']:.1%} of the energy kept"
        say(f"{name}: {row['bits_per_weight']:.2f} bits per weight, weights {row['weight_error']:.2%}, outputs "
            f"{row['output_error']:.2%}{kept}; {row['bits_per_byte']:.4f} bits per byte")  # fmt: skip
    return figures


def inputs_of(network: torch.nn.Module, linears: dict[str, Any], tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what each layer is given for some text."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        part.register_forward_pre_hook(lambda _, given, name=name: seen.__setitem__(name, given[0].detach()))
        for name, part in linears.items()
    ]
    with torch.no_grad():
        network(tokens)
    for hook in hooks:
        hook.remove()
    return seen


def ways() -> dict[str, Callable[[torch.nn.Linear], tuple[torch.Tensor, Any, int, float | None]]]:
    """Return ways to compress a layer: to its dense weight, the layer, its weight's bytes, a spectrum's energy kept."""

    def quantised(quantizer: Any) -> Any:
        def call(linear: torch.nn.Linear) -> tuple[torch.Tensor, Any, int, None]:
            small = quantizer.quantize(linear.weight)
            dense = small.dequantize().to(linear.weight.device)
            return dense, partial(torch.nn.functional.linear, weight=dense, bias=linear.bias), small.nbytes, None

        return call

    def sparse(keep: float, quantizer: Any = None) -> Any:
        def call(linear: torch.nn.Linear) -> tuple[torch.Tensor, Any, int, float]:
            layer = nn.spectralize(linear, keep, quantizer=quantizer)
            dense = layer.weight.dense().detach().mT
            return dense, layer, layer.report.nbytes, layer.report.retained_energy

        return call

    found: dict[str, Any] = {}
    for bits in (16, 12, 8, 6):
        found[f"polar, {bits} bits a pair"] = quantised(nn.PolarQuantizer(bits))
        found[f"entropy-coded, {bits} bits a pair"] = quantised(nn.PolarQuantizer(bits, entropy_coded=True))
    found["int8"] = quantised(nn.Int8Quantizer())
    for keep in (0.9, 0.5, 0.1, 0.01):
        found[f"spectrum, {keep:.0%} kept"] = sparse(keep)
    found["spectrum, 50% kept, polar 12 bits"] = sparse(0.5, nn.PolarQuantizer(12, levels="fitted"))
    return found


# ---- on a GPU -----------------------------------------------------------------------------------------------------


def on_cuda(device: str) -> dict[str, Any]:
    """Time the product on a GPU beside a dense one."""
    random = torch.Generator(device).manual_seed(0)
    last = SIDE // 2 + 1
    places = torch.randint(0, SIDE * last, (round(SHARE * SIDE * last),), generator=random, device=device).unique()
    places = places[(places % last > 0) & (places % last < last - 1)]
    values = torch.randn(len(places), dtype=torch.complex64, generator=random, device=device)
    weight = nn.SparseSpectralTensor.from_spectrum((SIDE, SIDE), places, values)
    del places, values
    rows = []
    for count in (*VECTORS, 512):
        x = torch.randn(count, SIDE, device=device)
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.empty_cache()
        row = {"vectors": count, "seconds": device_seconds(lambda x=x: nn.block_streaming_matmul(x, weight))}
        row["peak_MB"] = torch.cuda.max_memory_allocated() / 1e6
        dense = torch.randn(SIDE, SIDE, device=device)
        row["dense_seconds"] = device_seconds(lambda x=x, dense=dense: x @ dense)
        row["dense_MB"] = dense.nbytes / 1e6
        del dense
        rows.append(row)
        say(f"{count} vectors on the GPU: {row['seconds'] * 1e3:.1f} ms with {row['peak_MB']:.0f} MB, dense float32 "
            f"{row['dense_seconds'] * 1e3:.1f} ms with {row['dense_MB']:.0f} MB")  # fmt: skip
    return {"side": SIDE, "kept": weight.kept, "nbytes": weight.nbytes, "products": rows}


def device_seconds(call: Callable[[], Any]) -> float:
    """Return the median time of a call by the wall clock, from an idle device until it is idle again."""
    seconds = []
    for _ in range(4):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=("quantizers", "product", "model", "cuda"))
    parser.add_argument("--data", help="folder with {train,valid,test}.txt or .txt.xz")
    parser.add_argument("--save", action="store_true", help="write the record to benchmarks/results/")
    parser.add_argument("--output", type=Path, help="write the record to this file")
    parser.add_argument("--device", default="cpu", help="of the model and of what is measured on a GPU")
    parser.add_argument("--steps", type=int, default=0, help="of the model's training")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.step:
        name, path, *others = options.step
        if name == "make":
            make(path)
        elif name == "multiply":
            multiply(path, int(others[0]), "gradient" in others)
        else:
            compare(path, int(others[0]))
        return
    wanted = options.only or ("quantizers", "product", "model")
    if "model" in wanted and not options.data:
        raise SystemExit("the model is trained on a text: --data FOLDER")
    made = machine()
    target = Path(__file__).parent / "results" / f"compression-{made['threads']}-core-cpu.json"
    if options.output:
        target = options.output
    if options.device != "cpu":
        made["gpu"] = torch.cuda.get_device_name()
    figures: dict[str, Any] = {}
    if (options.save or options.output) and target.exists():
        figures = json.loads(target.read_text())["figures"]  # parts that are not measured now stay
    if "quantizers" in wanted:
        figures["quantizers"] = quantizers()
    if "product" in wanted:
        figures["product"] = product()
    if "model" in wanted:
        figures["model"] = model(options.data, options.device, options.steps)
    if "cuda" in wanted:
        figures["cuda"] = on_cuda(options.device)
    if options.save or options.output:
        command = f"python -m benchmarks.compression --only {' '.join(figures)}"
        record = {
            "benchmark": "compression", "command": command + " --data FOLDER" * ("model" in figures),
            "date": datetime.now(UTC).date().isoformat(), "machine": made, "figures": figures,
        }  # fmt: skip
        target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
