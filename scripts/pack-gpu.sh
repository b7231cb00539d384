#!/usr/bin/env bash
# Packs what runs on a GPU machine without compiler, registry or Node: pack-gpu.sh FOLDER, then FOLDER/run.sh there.
# PACK_CUDA=EMULATE packs the emulator instead, to try the scripts where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?usage: scripts/pack-gpu.sh FOLDER}
cuda=${PACK_CUDA:-ON}
folder=$(realpath -m "$folder")
case $folder in
  "$PWD"/build/*) ;;
  "$PWD" | "$PWD"/*) echo "FOLDER must not lie in the package" >&2 && exit 1 ;;
esac
mkdir -p "$folder/package/build/Release"

programs=build/gpu-$cuda
cmake -S . -B "$programs" -DCUDA="$cuda" -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$programs" --parallel 2 --target cuda-parity cuda-bench
if [ "$cuda" = EMULATE ]; then
  npx cmake-js compile --out build/emulated-plain --CDCUDA=EMULATE
  npx tsc -p tsconfig.build.json
  addon=build/emulated-plain/build/Release
else
  npm run build
  addon=build/Release
fi

cp "$programs/cuda-parity" "$programs/cuda-bench" "$folder"
cp "$(command -v node)" "$folder/node"
tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$folder/package"
cp "$addon/score-sde.node" "$folder/package/build/Release"
cp scripts/run-gpu.sh "$folder/run.sh"
chmod +x "$folder/run.sh"
