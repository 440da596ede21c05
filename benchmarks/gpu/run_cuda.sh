#!/usr/bin/env bash
# Check and measure the CUDA backend on a machine with an NVIDIA GPU:  benchmarks/gpu/run_cuda.sh [OUTPUT_DIR]
# What is timed runs alone, then the tests run side by side; each part has its own time, and all have BUDGET seconds. A
# part that fails does not stop the rest. The table comes last.
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
side() {  # side NAME SECONDS ARGUMENTS...: pytest beside the other ones
  local name=$1 limit=$2 start=$SECONDS left=$((budget - SECONDS))
  shift 2
  [ "$limit" -gt "$left" ] && limit=$left
  if [ "$limit" -lt 5 ]; then summary+=("$name: no time left"); return; fi
  (
    OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 timeout "$limit" "$python" -m pytest $tests -m "not slow" "$@" >"$out/$name.txt" 2>&1
    echo "$name: exit $? after $((SECONDS - start)) s" >>"$out/sides"
  ) &
}
rm -f "$out/sides"
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
echo "=== tests"
for room in reduce gather fft nufft attention attention_half attention_extremes; do
  side "$room" 300 "tests/conformance/test_$room.py" --backend cuda
done
side fused 400 tests/conformance/test_elementwise.py --backend cuda --kernel fused
side torch 300 tests/conformance/test_elementwise.py --backend cuda --kernel torch
side own 300 tests/backends/cuda tests/core/test_staging.py tests/core/test_call_keys.py
side pipelines 300 tests/pipelines
wait
echo "=== summary"
printf '%s\n' "${summary[@]}"
cat "$out/sides"
grep -hE "^(FAILED|ERROR)|passed|failed" "$out"/*.txt | cut -c1-200 | head -60
cat "$out/figures.txt" | tail -60
