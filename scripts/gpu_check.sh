#!/usr/bin/env bash
# Checks a CUDA device and measures it:
#
#     scripts/gpu_check.sh STAGED [DEVICE [TEXT]]
#
# parity   The losses of 50 steps against the CPU's: within 1e-3 of each in f32; in bf16 it is said how far they are.
# steps    Training steps at the shapes of the runs below and at GPT-2's, in tokens/s and in the share of the device's
#          peak (PEAK, FLOP/s; by default an H200's 9.89e14 of bf16), against PyTorch's where PYTHON (python3) has it,
#          one after the other.
# savings  With a TEXT: staged runs of 59 M and of 3 M parameters against runs from scratch (scripts/gpu_savings.sh).
#
# PEAK, PYTHON, PARTS ("parity steps savings"), WORK (a folder in which the savings' runs stay) and what gpu_savings.sh
# reads are environment variables. STAGED must be built with `--features cuda`, TEXT be some 10 MB. Parity and steps take
# five minutes on an H200, the savings more than ten; exit code 1 where a part fails.
set -euo pipefail
staged=$(realpath "$1")
device=${2:-cuda}
text=${3:+$(realpath "$3")}
peak=${PEAK:-9.89e14}
python=${PYTHON:-python3}
root=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# After the part that is on, which is told to stop too.
trap 'exit 143' INT TERM
savings_in=$(realpath -m "${WORK:-$work/savings}")
cd "$work"
failed=
say() { printf '%5d s  %s\n' $SECONDS "$*"; }

train() {
    "$staged" train "$1.toml" --out "$2" --device "$3" > /dev/null 2> "$2.err" || { cat "$2.err" >&2; exit 1; }
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
parity() {
    sed 's/steps = 500/steps = 50/' "$root/schedules/demo.toml" > parity.toml
    train parity on-cpu cpu
    train parity on-device "$device"
    apart on-device f32 1e-3 || failed="parity"
    if [ "$device" != cpu ]; then
        { cat parity.toml; printf '\n[machine]\nprecision = "bf16"\n'; } > bf16.toml
        train bf16 in-bf16 "$device"
        # Not asked for: how far eight bits lead.
        apart in-bf16 bf16 1
    fi
}

number() { grep -oE "(^|\")$1\"?[:=] ?[0-9.]+" | grep -oE '[0-9.]+$'; }
line='%-12s %7s %6s %5s %5s %5s %10s %8s %10s %6s\n'
# row SHAPE CONTEXT VOCABULARY BATCH MICRO-BATCH FORMAT
row() {
    [ "$6" = bf16 ] && [ "$device" = cpu ] && return
    local arguments=(--shape "$1" --context "$2" --vocab "$3" --batch "$4" --micro-batch "$5" --steps 10)
    [ "$6" = bf16 ] && arguments+=(--bf16)
    local ours theirs=- ratio=- speed
    ours=$("$staged" bench step "${arguments[@]}" --device "$device" --json) || { failed="step $1"; return 0; }
    speed=$(number tokens_per_second <<< "$ours")
    if [ -n "$torch" ] && [[ $1 != *-f* ]]; then
        theirs=$("$python" "$root/scripts/torch_step.py" "${arguments[@]}" --device "$device" | number tok/s) ||
            { theirs=failed; failed="PyTorch at $1"; }
        [ "$theirs" = failed ] || ratio=$(awk -v a="$speed" -v b="$theirs" 'BEGIN { printf "%.2f", a / b }')
    fi
    # shellcheck disable=SC2059
    printf "$line" "$1" "$2" "$3" "$4" "$5" "$6" "${speed%.*}" \
        "$(number gflops <<< "$ours" | awk -v peak="$peak" -v format="$6" '
            { if (format == "bf16") printf "%.1f %%", 1e11 * $1 / peak; else print "-" }')" "$theirs" "$ratio"
}
steps() {
    torch=
    "$python" -c 'import sys, torch; torch.zeros(1, device=sys.argv[1])' "$device" 2> /dev/null && torch=1
    # shellcheck disable=SC2059
    printf "$line" shape context vocab batch micro "" tokens/s "of peak" PyTorch ratio
    row 12x640x10 256 8192 64 64 bf16
    row 12x640x10 256 8192 64 64 f32
    row 3x640x10 256 8192 64 64 bf16
    row 12x320x5 256 8192 64 64 bf16
    row 4x256x4 128 256 32 32 f32
    row 4x256x4-f256 128 256 32 32 f32
    row 12x768x12 1024 50257 32 16 bf16
}

savings() {
    if [ -n "$text" ]; then
        "$root/scripts/gpu_savings.sh" "$staged" "$device" "$text" "$savings_in" || failed=savings
    fi
}

for part in ${PARTS:-parity steps savings}; do
    case $part in
        parity | steps | savings) $part ;;
        *) echo "PARTS: $part: must be parity, steps or savings" >&2; exit 2 ;;
    esac
    say "$part"
done
[ -z "$failed" ] || { echo "failed: $failed"; exit 1; }
