#!/usr/bin/env bash
# Checks a CUDA device and measures it:
#
#     scripts/gpu_check.sh STAGED [DEVICE [TEXT]]
#
# 1. The losses of 50 steps against the CPU's: within 1e-3 of each in f32; in bf16 it is said how far they are.
# 2. Training steps at some shapes, those of the runs below among them (the smaller ones and f32 last), in tokens/s and
#    in the share of the device's peak (PEAK, FLOP/s; by default an H200's 9.89e14 of bf16), against PyTorch's where
#    PYTHON (python3) has it, one after the other.
# 3. With a TEXT: a model of 59 M parameters in bf16 from scratch at three learning rates, the best rate at three
#    lengths, and staged runs that grow in depth and in width against those. JOBS runs (3) are made side by side.
#
# PEAK, PYTHON, JOBS, RATES (learning rates, "0.002 0.004 0.008") and WORK (an empty folder in which the runs stay) are
# environment variables. STAGED must be built with `--features cuda`, TEXT be some 10 MB. Five minutes or more on an
# H200; exit code 1 where a part fails.
set -euo pipefail
staged=$(realpath "$1")
device=${2:-cuda}
text=${3:+$(realpath "$3")}
peak=${PEAK:-9.89e14}
python=${PYTHON:-python3}
jobs=${JOBS:-3}
root=$(realpath "$(dirname "$0")/..")
if [ -n "${WORK:-}" ]; then
    work=$(realpath -m "$WORK") && mkdir -p "$work"
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
cd "$work"
failed=
say() { printf '%5d s  %s\n' $SECONDS "$*"; }

sed 's/steps = 500/steps = 50/' "$root/schedules/demo.toml" > parity.toml
train() {
    "$staged" train "$1.toml" --out "$2" --device "$3" > /dev/null 2> train.err ||
        { cat train.err >&2; exit 1; }
}
losses() { cut -d, -f5 "$1/metrics.csv" | tail -n +2; }
apart() {
    paste <(losses on-cpu) <(losses "$1") | awk -v what="$2" -v bound="$3" '
        { apart = ($1 - $2) / $1; if (apart < 0) apart = -apart; if (apart > most) most = apart }
        END {
            printf "%s: largest relative difference of %d losses to the CPU %.2e\n", what, NR, most
            exit !(NR == 50 && most <= bound)
        }'
}
train parity on-cpu cpu
train parity on-device "$device"
apart on-device f32 1e-3 || failed="parity"
if [ "$device" != cpu ]; then
    { cat parity.toml; printf '\n[machine]\nprecision = "bf16"\n'; } > bf16.toml
    train bf16 in-bf16 "$device"
    # Not asked for: how far eight bits lead.
    apart in-bf16 bf16 1
fi
say "parity"

number() { grep -oE "(^|\")$1\"?[:=] ?[0-9.]+" | grep -oE '[0-9.]+$'; }
torch=
"$python" -c 'import torch; assert torch.cuda.is_available()' 2> /dev/null && torch=1
line='%-10s %7s %6s %6s %6s %5s %10s %8s %12s %6s\n'
row() {
    local arguments=(--shape "$1" --context "$2" --vocab "$3" --batch "$4" --micro-batch "$5" --steps 10)
    [ "$6" = bf16 ] && arguments+=(--bf16)
    local ours theirs=- ratio=- speed
    ours=$("$staged" bench step "${arguments[@]}" --device "$device" --json) || { failed="step $1"; return 0; }
    speed=$(number tokens_per_second <<< "$ours")
    if [ -n "$torch" ] && [ -n "${7:-}" ]; then
        theirs=$("$python" "$root/scripts/torch_step.py" "${arguments[@]}" | number tok/s) ||
            { theirs=failed; failed="PyTorch at $1"; }
        [ "$theirs" = failed ] || ratio=$(awk -v a="$speed" -v b="$theirs" 'BEGIN { printf "%.2f", a / b }')
    fi
    # shellcheck disable=SC2059
    printf "$line" "$1" "$2" "$3" "$4" "$5" "$6" "${speed%.*}" \
        "$(number gflops <<< "$ours" | awk -v peak="$peak" -v format="$6" '
            { if (format == "bf16") printf "%.1f %%", 1e11 * $1 / peak; else print "-" }')" "$theirs" "$ratio"
}
# shellcheck disable=SC2059
printf "$line" shape context vocab batch micro "" tokens/s "of peak" PyTorch ratio
row 12x640x10 256 8192 64 64 bf16 torch
row 12x768x12 1024 50257 32 16 bf16 torch
say "steps"

if [ -n "$text" ]; then
    # The tasks that come in by lines, some side by side.
    side_by_side() {
        xargs -P "$jobs" -d '\n' -I {} bash -c '{}' || { tail -n 3 ./*.log >&2; echo "failed: $1"; exit 1; }
    }
    with_rate() { sed "s/^peak = .*/peak = $2/" "$root/schedules/h200_$1.toml" > "$1-$2.toml"; }
    run() { echo "'$staged' train $1.toml --text '$text' --device $device --out $2 ${*:3} > '${2//\//-}'.log 2>&1"; }
    end() { tail -n 1 "$1/metrics.csv" | cut -d, -f6; }

    rates=${RATES:-0.002 0.004 0.008}
    for rate in $rates; do
        with_rate baseline "$rate"
        run "baseline-$rate" "from-scratch-$rate/0.5" --length 0.5
    done | side_by_side rates
    best=$(for rate in $rates; do echo "$(end "from-scratch-$rate/0.5") $rate"; done | tee rates.txt | sort -g | head -n 1 | cut -d' ' -f2)
    awk '{ printf "from scratch, half of the steps, peak %s: %.4f nats per token\n", $2, $1 }' rates.txt
    say "rates"
    baseline=from-scratch-$best
    {
        run "baseline-$best" "$baseline/1" --branch-of "$baseline/0.5"
        run "baseline-$best" "$baseline/0.7" --length 0.7 --branch-of "$baseline/0.5"
        for kind in depth width; do
            with_rate "$kind" "$best"
            run "$kind-$best" "$kind"
        done
    } | side_by_side runs
    say "runs"
    for run in "$baseline/0.5" "$baseline/0.7" "$baseline/1" depth width; do
        tail -n 1 "$run/metrics.csv" | awk -F, -v run="$run" '{ printf "%-24s step %d, %.3e FLOPs, %.4f nats per token\n", run, $2, $4, $6 }'
    done
    for kind in depth width; do
        "$staged" compare "$kind" "$baseline" || failed="$kind"
    done
fi

row 3x640x10 256 8192 64 64 bf16
row 12x320x5 256 8192 64 64 bf16
row 12x640x10 256 8192 64 64 f32 torch
say "smaller shapes, and f32"
[ -z "$failed" ] || { echo "failed: $failed"; exit 1; }
