#!/usr/bin/env bash
# Builds, checks and measures the CUDA backend on a machine with a driver and the CUDA libraries; without network if `cargo fetch`
# ran before. Meant to take under ten minutes; it has not been run on a GPU yet. What it prints is in target/gpu/results.txt, too.
#
#   benches/gpu.sh [SHAPE…]        # llava-1.5-7b and llava-1.6-7b by default
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/gpu
exec > >(tee target/gpu/results.txt) 2>&1

shapes=("$@")
[ "$#" -gt 0 ] || shapes=(llava-1.5-7b llava-1.6-7b)

date -u +%F
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

offline=()
cargo fetch --locked 2>/dev/null || offline=(--offline)
cargo build --release --locked "${offline[@]}" --features cuda

# Before anything is timed: the built-in checkpoint answers as on the CPU, but for near ties in 16 bits.
for method in fastervlm vispruner cdpruner datp; do
    for backend in cuda flex; do
        target/release/secateur eval demo --model demo --backend "$backend" --method "$method" --tokens 64 --limit 40 --force \
            --out "target/gpu/$backend" >"target/gpu/$method.$backend"
    done
    answers="demo-demo-$method-64/answers.jsonl"
    same=$(paste -d '\n' <(grep -o '"text":"[^"]*"' "target/gpu/cuda/$answers") <(grep -o '"text":"[^"]*"' "target/gpu/flex/$answers") |
        awk 'NR % 2 {first = $0; next} first == $0 {same++} END {print same + 0}')
    echo "parity, $method at 64 tokens: $same of 40 answers as on the CPU"
    [ "$same" -ge 37 ]
done

for shape in "${shapes[@]}"; do
    target/release/secateur bench --backend cuda --shape "$shape" --method all --new-tokens 32 --repeats 5
done
