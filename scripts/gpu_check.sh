#!/usr/bin/env bash
# Checks a CUDA device: the losses of 50 steps against the CPU's, within 1e-3 of each, then the speed of a training
# step at some shapes, and with a TEXT a staged run of 59 M parameters against its baseline in bf16, with tokens/s and
# the share of the device's peak in each stage (PEAK, FLOP/s; by default an H200's 9.89e14). The program must be built
# with `--features cuda`.
#
#     scripts/gpu_check.sh STAGED [DEVICE [TEXT]]
set -euo pipefail
staged=$(realpath "$1")
device=${2:-cuda}
text=${3:+$(realpath "$3")}
peak=${PEAK:-9.89e14}
root=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

sed 's/steps = 500/steps = 50/' "$root/schedules/demo.toml" > run.toml
"$staged" train run.toml --out on-cpu > /dev/null 2>&1
"$staged" train run.toml --out on-device --device "$device" > /dev/null 2> device.err ||
    { cat device.err >&2; exit 1; }
losses() { cut -d, -f5 "$1/metrics.csv" | tail -n +2; }
paste <(losses on-cpu) <(losses on-device) | awk '
    { apart = ($1 - $2) / $1; if (apart < 0) apart = -apart; if (apart > most) most = apart }
    END {
        printf "parity: largest relative difference of %d losses %.2e\n", NR, most
        exit !(NR == 50 && most <= 1e-3)
    }'

printf '%-10s %6s %6s %6s %16s %10s %14s\n' shape context vocab batch precision tokens/s GFLOP/s
bench() {
    local out
    out=$("$staged" bench step --shape "$1" --context "$2" --vocab "$3" --batch "$4" \
        --micro-batch "$5" --device "$device" --json ${6:+--bf16})
    number() { grep -oE "\"$1\": [0-9.]+" <<< "$out" | grep -oE '[0-9.]+$'; }
    printf '%-10s %6d %6d %6d %16s %10.0f %14.1f\n' "$1" "$2" "$3" "$4" "${6:-f32}" \
        "$(number tokens_per_second)" "$(number gflops)"
}
bench 4x128x4 128 512 16 16
if [ "$device" != cpu ]; then
    for precision in "" bf16; do
        bench 6x256x8 256 4096 64 64 $precision
        bench 12x768x12 1024 50257 32 8 $precision
    done
fi

[ -n "$text" ] || exit 0
# The rate decays, so the staged run's end is compared with those of two lengths from scratch.
train() { "$staged" train "$root/schedules/h200_$1.toml" --text "$text" --device "$device" "${@:2}" > /dev/null; }
train width --out width
train baseline --out baseline/0.6 --length 0.6
train baseline --out baseline/1 --branch-of baseline/0.6
for run in width baseline/1; do
    # Median tokens/s of each stage, and 6 N of it over the peak.
    n_params() { awk -F, -v stage="$1" 'NR > 1 && $1 == stage && $3 > 0 {
        if (first == "") { first = $3; c = $4 } else { n = ($4 - c) / ($3 - first) / 6 } } END { print n }' "$run/metrics.csv"; }
    for stage in $(cut -d, -f1 "$run/metrics.csv" | tail -n +2 | sort -un); do
        speed=$(awk -F, -v stage="$stage" 'NR > 1 && $1 == stage { print $9 }' "$run/metrics.csv" |
            sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }')
        awk -v run="$run" -v stage="$stage" -v n="$(n_params "$stage")" -v speed="$speed" -v peak="$peak" 'BEGIN {
            printf "%-10s stage %d: N = %.3e, %.0f tokens/s, %.1f %% of the peak (6 N)\n",
                run, stage + 1, n, speed, 600 * n * speed / peak }'
    done
done
"$staged" compare width baseline
