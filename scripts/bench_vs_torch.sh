#!/usr/bin/env bash
# Measures a training step of staged and of PyTorch in turns, and prints medians and their ratio.
#
#     [CASES="a b"] scripts/bench_vs_torch.sh STAGED [PYTHON] [THREADS] [TURNS] [STEPS]
#
# PyTorch is scripts/torch_step.py, by PYTHON (python3): f32, eager, with the options in TORCH (--compile). The cases:
#     a: 4 layers, width 128, 4 heads, context 128, vocabulary 512, 16 sequences a step
#     b: 6 layers, width 256, 8 heads, context 256, vocabulary 4096, 8 sequences a step
#     c: 4 layers, width 64, 2 heads, context 128, vocabulary 256, 32 sequences a step
#     d: 8 layers, width 512, 8 heads, context 512, vocabulary 8192, 4 sequences a step
set -euo pipefail
staged=$1
python=${2:-python3}
threads=${3:-2}
turns=${4:-5}
steps=${5:-20}
torch=$(dirname "$0")/torch_step.py
declare -A arguments=(
    [a]="--shape 4x128x4 --context 128 --vocab 512 --batch 16"
    [b]="--shape 6x256x8 --context 256 --vocab 4096 --batch 8"
    [c]="--shape 4x64x2 --context 128 --vocab 256 --batch 32"
    [d]="--shape 8x512x8 --context 512 --vocab 8192 --batch 4"
)
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
number() { grep -oE "$1[\": =]*[0-9.]+" | grep -oE '[0-9.]+$'; }

printf '%4s %18s %18s %7s %12s %12s\n' case "staged tokens/s" "PyTorch tokens/s" ratio "staged MB" "PyTorch MB"
for case in ${CASES:-a b}; do
    ours=() theirs=() our_memory=() their_memory=()
    for ((i = 0; i < turns; i++)); do
        read -ra shape <<< "${arguments[$case]:?"CASES: $case: must be a, b, c or d"} --steps $steps --threads $threads"
        out=$("$staged" bench step "${shape[@]}" --json)
        ours+=("$(number tokens_per_second <<< "$out")")
        our_memory+=("$(number peak_rss_bytes <<< "$out" | awk '{ print $1 / 1e6 }')")
        out=$("$python" "$torch" --device cpu --warmup 2 ${TORCH:-} "${shape[@]}")
        theirs+=("$(number 'tok/s' <<< "$out")")
        their_memory+=("$(number memory <<< "$out")")
    done
    a=$(printf '%s\n' "${ours[@]}" | median)
    b=$(printf '%s\n' "${theirs[@]}" | median)
    c=$(printf '%s\n' "${our_memory[@]}" | median)
    d=$(printf '%s\n' "${their_memory[@]}" | median)
    printf '%4s %18.0f %18.0f %7.2f %12.0f %12.0f\n' $case "$a" "$b" \
        "$(awk -v a="$a" -v b="$b" 'BEGIN { print a / b }')" "$c" "$d"
done
