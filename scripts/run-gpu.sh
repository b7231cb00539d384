#!/usr/bin/env bash
# On a GPU machine, in a folder that scripts/pack-gpu.sh made: every check and the benchmark. Results go to results/.
# STEPS names those that are wanted, of parity, sanitizer, suites, bench, network; all unless given.
set -uo pipefail
cd "$(dirname "$0")"
export PATH="$PWD:$PATH"
export RESULTS=$PWD/results
mkdir -p "$RESULTS"
reason=$(node -p '
  const found = require("./package/dist").devices().filter(({ device }) => device.startsWith("cuda"));
  found.some(({ available }) => available) ? "" : found.map(({ reason }) => reason).join("; ")')
[ -z "$reason" ] || { echo "no CUDA device can be used: $reason" >&2; exit 1; }

status=0
step() { # step NAME COMMAND...
  echo "== $1"
  "${@:2}" 2>&1 | tee "$RESULTS/$1.txt"
  [ "${PIPESTATUS[0]}" -eq 0 ] || { echo "== $1 failed"; status=1; }
}
wanted() { [[ " ${STEPS:-parity sanitizer suites bench network} " == *" $1 "* ]]; }

! command -v nvidia-smi >/dev/null || nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$RESULTS/gpu.txt"
! wanted parity || step parity ./cuda-parity
if wanted sanitizer && command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck; do step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 ./cuda-parity brief; done
fi
cd package
read -ra suites <<<"$(node -p 'require("./test/device-suites.json").join(" ")')"
! wanted suites || step suites node node_modules/jest/bin/jest.js "${suites[@]}"
export CUDA_BENCH=../cuda-bench
! wanted bench || step bench scripts/bench-gpu.sh
# Where ONNX Runtime's CUDA provider is there, of the library's version.
! wanted network || step network node scripts/network-gpu.mjs
exit "$status"
