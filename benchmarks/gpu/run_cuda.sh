#!/usr/bin/env bash
# Check and measure the CUDA backend on a machine with an NVIDIA GPU:  benchmarks/gpu/run_cuda.sh [OUTPUT_DIR]
# Parts run one after the other, each within its own time; a part that fails does not stop the rest. The table comes last.
cd "$(dirname "$0")/../.." || exit 1
out=${1:-cuda-results}
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH=$PWD:${PYTHONPATH:-} PYTHONUNBUFFERED=1
summary=()
part() {  # part NAME SECONDS COMMAND...
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  echo "=== $name"
  timeout "$limit" "$@" >"$out/$name.txt" 2>&1
  local code=$?
  tail -n "${LINES_SHOWN:-15}" "$out/$name.txt" | cut -c1-220
  summary+=("$name: exit $code after $((SECONDS - start)) s")
}
tests="-q --maxfail=25 --no-header -p no:cacheprovider --tb=short"
part smoke 60 "$python" -m benchmarks.cuda_smoke
part fft 60 "$python" -m pytest $tests -m "not slow" tests/conformance/test_fft.py --backend cuda
part elementwise 60 "$python" -m pytest $tests tests/conformance/test_elementwise.py --backend cuda
part reduce 40 "$python" -m pytest $tests tests/conformance/test_reduce.py --backend cuda
part gather 40 "$python" -m pytest $tests tests/conformance/test_gather.py --backend cuda
part attention 60 "$python" -m pytest $tests tests/conformance/test_attention.py --backend cuda
part nufft 60 "$python" -m pytest $tests tests/conformance/test_nufft.py --backend cuda
part figures 100 "$python" -m benchmarks.cuda --quick --output "$out/cuda.json"
echo "=== summary"
printf '%s\n' "${summary[@]}"
grep -hE "^(FAILED|ERROR)|passed|failed" "$out"/*.txt | cut -c1-200 | head -60
cat "$out/figures.txt" | tail -60
