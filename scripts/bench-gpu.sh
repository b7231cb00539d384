#!/usr/bin/env bash
# The benchmark on this machine's GPU, and PyTorch's beside it where that is installed. Results go to bench/results.
# CUDA_BENCH names a program that is compiled already, BENCH_ARGS its arguments.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${CUDA_BENCH:-}
if [ -z "$program" ]; then
  cmake -S . -B build/gpu -DCUDA=ON -DCMAKE_BUILD_TYPE=Release >/dev/null
  cmake --build build/gpu --parallel 2 --target cuda-bench
  program=build/gpu/cuda-bench
fi
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
# shellcheck disable=SC2086
"$program" ${BENCH_ARGS:-} | tee "$lines"
name=$(sed -n '1s/.*"device":"\([^"]*\)".*/\1/p' "$lines" | tr -c 'A-Za-z0-9\n' '-')
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  python3 bench/torch_gpu_peer.py | tee -a "$lines"
else
  echo "no PyTorch with CUDA: the baselines are left out" >&2
fi
results=${RESULTS:-bench/results}
mkdir -p "$results"
cp "$lines" "$results/$(date +%F)-$name.jsonl"
node scripts/gpu-report.mjs "$lines" | tee "$results/$(date +%F)-$name.txt"
