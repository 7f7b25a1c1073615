#!/usr/bin/env bash
# Builds, checks and measures the CUDA backend, in under ten minutes on a machine with a driver and the CUDA libraries; without
# network if `cargo fetch` ran before or the target folder is warm. Writes what it prints to gpu-results.txt, too.
#
#   benches/gpu.sh [SHAPE…]        # llava-1.5-7b and llava-1.6-7b by default
set -euo pipefail
cd "$(dirname "$0")/.."
exec > >(tee gpu-results.txt) 2>&1

shapes=("$@")
[ "$#" -gt 0 ] || shapes=(llava-1.5-7b llava-1.6-7b)

date -u +%F
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

offline=()
cargo fetch --locked 2>/dev/null || offline=(--offline)
cargo build --release --locked "${offline[@]}" --features cuda

# The official code's patches and answers, before anything is timed.
for method in fastervlm vispruner cdpruner datp; do
    cargo run --release "${offline[@]}" --features cuda -- eval demo --model demo --backend cuda --method "$method" --tokens 64 \
        --limit 40 --force --out target/gpu/cuda --json | tail -n 1 > "target/gpu-$method.cuda"
    cargo run --release "${offline[@]}" --features cuda -- eval demo --model demo --backend flex --method "$method" --tokens 64 \
        --limit 40 --force --out target/gpu/flex --json | tail -n 1 > "target/gpu-$method.flex"
    answers="demo-demo-$method-64/answers.jsonl"
    same=$(paste -d '\n' <(grep -o '"text":"[^"]*"' "target/gpu/cuda/$answers") <(grep -o '"text":"[^"]*"' "target/gpu/flex/$answers") |
        awk 'NR % 2 {first = $0; next} first == $0 {same++} END {print same + 0}')
    echo "parity, $method at 64 tokens: $same of 40 answers as on the CPU"
done

for shape in "${shapes[@]}"; do
    target/release/secateur bench --backend cuda --shape "$shape" --method all --new-tokens 32 --repeats 5
done
