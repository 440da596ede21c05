#!/usr/bin/env bash
# Check and measure the CUDA backend on a machine with an NVIDIA GPU:  benchmarks/gpu/run_cuda.sh [OUTPUT_DIR]
# Parts run one after the other, each within its own time and all within BUDGET seconds; a part that fails does not stop
# the rest. The table comes last.
cd "$(dirname "$0")/../.." || exit 1
out=${1:-cuda-results}
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH=$PWD:${PYTHONPATH:-} PYTHONUNBUFFERED=1
budget=${BUDGET:-1500}
summary=()
part() {  # part NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  local left=$((budget - SECONDS))
  [ "$limit" -gt "$left" ] && limit=$left
  if [ "$limit" -lt 5 ]; then summary+=("$name: no time left"); return; fi
  echo "=== $name"
  timeout "$limit" "$@" >"$out/$name.txt" 2>&1
  local code=$?
  tail -n "${LINES_SHOWN:-15}" "$out/$name.txt" | cut -c1-220
  summary+=("$name: exit $code after $((SECONDS - start)) s")
}
tests="-q --maxfail=25 --no-header -p no:cacheprovider --tb=short"
part smoke 240 "$python" -m benchmarks.cuda_smoke
part figures 110 "$python" -m benchmarks.cuda --quick --output "$out/cuda.json"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -1)
if [ -n "$sanitizer" ]; then
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1  # so that every tensor is an allocation of its own
  part sanitizer 120 "$sanitizer" --tool memcheck --error-exitcode 9 "$python" -m benchmarks.gpu.own_kernels
  unset PYTORCH_NO_CUDA_MEMORY_CACHING
fi
part steady 60 "$python" -m benchmarks.gpu.steady --output "$out/cuda-steady.json"
part gather 90 "$python" -m pytest $tests tests/conformance/test_gather.py --backend cuda
part reduce 90 "$python" -m pytest $tests tests/conformance/test_reduce.py --backend cuda
part attention 240 "$python" -m pytest $tests tests/conformance/test_attention.py tests/conformance/test_attention_half.py tests/conformance/test_attention_extremes.py --backend cuda
part elementwise 150 "$python" -m pytest $tests tests/conformance/test_elementwise.py --backend cuda
part own 150 "$python" -m pytest $tests -m "not slow" tests/backends/cuda
part fft 150 "$python" -m pytest $tests -m "not slow" tests/conformance/test_fft.py --backend cuda
part nufft 150 "$python" -m pytest $tests tests/conformance/test_nufft.py --backend cuda
echo "=== summary"
printf '%s\n' "${summary[@]}"
grep -hE "^(FAILED|ERROR)|passed|failed" "$out"/*.txt | cut -c1-200 | head -60
cat "$out/figures.txt" | tail -60
