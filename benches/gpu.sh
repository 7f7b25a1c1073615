#!/usr/bin/env bash
# Builds, checks and measures the CUDA backend on a machine with a driver and the CUDA toolkit; without network if `cargo fetch` ran
# before. What it prints is in target/gpu/results.txt, too. A check that fails does not keep the others, and the figures, from being there; it is
# named at the end.
#
#   benches/gpu.sh [SHAPE…]              # llava-1.5-7b and llava-1.6-7b by default
#   SECATEUR_BUILT=DIR benches/gpu.sh    # no build: DIR has `secateur` and `engine`, the program that `cargo test --test engine` made
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
mkdir -p target/gpu
exec > >(tee target/gpu/results.txt) 2>&1

shapes=("$@")
[ "$#" -gt 0 ] || shapes=(llava-1.5-7b llava-1.6-7b)

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

failed=()

step machine
date -u +%F
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

built=${SECATEUR_BUILT-}
if [ -z "$built" ]; then
    step build
    offline=()
    cargo fetch --locked 2>/dev/null || offline=(--offline)
    cargo test --release --locked "${offline[@]}" --features cuda --test engine --no-run 2>&1 | tee target/gpu/build.txt
    built=target/gpu/built
    mkdir -p "$built"
    cp "${CARGO_TARGET_DIR:-target}/release/secateur" "$built/secateur"
    cp "$(sed -n 's/.*Executable .*(\(.*\))$/\1/p' target/gpu/build.txt)" "$built/engine"
fi
built=$(cd "$built" && pwd)

# Kernels are compiled when they are first used; what is started here one after the other shares them.
rm -rf target/gpu/kernels target/gpu/cuda target/gpu/flex
cd target/gpu
printf '[compilation]\ncache = { file = "kernels" }\n[autotune.logger]\nlevel = "disabled"\n' >cubecl.toml

step 'every operation beside its reference body, and the built-in checkpoint'
"$built/secateur" check --backend cuda || failed+=('secateur check')

step 'the official outputs in f32, and every operation in f32, f16 and bf16'
CARGO_MANIFEST_DIR=$root SECATEUR_TEST_CUDA=1 "$built/engine" goldens:: contracts:: --skip goldens::preprocess --skip goldens::tokenizer ||
    failed+=('official outputs and operations')

step 'the built-in checkpoint answers as on the CPU, but for near ties in 16 bits'
for backend in cuda flex; do
    "$built/secateur" sweep demo --model demo --backend "$backend" --method fastervlm,vispruner,cdpruner,datp --budgets 64 --limit 40 \
        --out "$backend" >"$backend.txt" 2>&1 || { cat "$backend.txt"; failed+=("answers on $backend"); }
done
for method in fastervlm vispruner cdpruner datp; do
    answers="demo-demo-$method-64/answers.jsonl"
    [ -f "cuda/$answers" ] && [ -f "flex/$answers" ] || { failed+=("answers with $method"); continue; }
    same=$(paste -d '\n' <(grep -o '"text":"[^"]*"' "cuda/$answers") <(grep -o '"text":"[^"]*"' "flex/$answers") |
        awk 'NR % 2 {first = $0; next} first == $0 {same++} END {print same + 0}')
    echo "$method at 64 tokens: $same of 40 answers as on the CPU"
    [ "$same" -ge 37 ] || failed+=("answers with $method")
done

for shape in "${shapes[@]}"; do
    step "$shape"
    bench=("$built/secateur" bench --backend cuda --shape "$shape" --new-tokens 32)
    "${bench[@]}" --method fastervlm --budgets 192,128,64,29 --repeats 5 --ceilings || failed+=("figures of $shape")
    "${bench[@]}" --method all --budgets 64 --repeats 3 || failed+=("methods on $shape")
done
step done
[ "${#failed[@]}" -eq 0 ] || { printf 'failed: %s\n' "${failed[@]}"; exit 1; }
