#!/usr/bin/env bash
# Measures what staged training saves on a CUDA device, for two models on one text:
#
#     scripts/gpu_savings.sh STAGED DEVICE TEXT OUT
#
# 59 M parameters in bf16 through a BPE (schedules/h200_*.toml): from scratch at three learning rates, the best rate at
# four lengths; growths by hand, in depth at three moments, in width, and in both at two; and a planned growth in width.
# 3 M parameters on bytes (schedules/bytes_3m_baseline.toml): from scratch at four lengths, at two other rates, and a
# planned growth of heads and feed-forward layers (schedules/bytes_3m_thin.toml).
#
# SEEDS ("1 2 3"), RATES of the former ("0.004 0.008 0.016") and MODELS ("59m 3m", made side by side) are environment
# variables. Ends its runs with their state saved on Ctrl-C or SIGTERM; the same command goes on from there. TEXT is some
# 10 MB. The curves come out as OUT/curves.csv. Steps of 59 M alone, three seeds at one rate, come to eleven minutes on an
# H200; compiling, growths and evaluations not counted. Exit code 1 where a run fails.
set -euo pipefail
staged=$(realpath "$1")
device=$2
text=$(realpath "$3")
mkdir -p "$4"
read -ra seeds <<< "${SEEDS:-1 2 3}"
read -ra rates <<< "${RATES:-0.004 0.008 0.016}"
read -ra models <<< "${MODELS:-59m 3m}"
schedules=$(realpath "$(dirname "$0")/../schedules")
cd "$4"
for model in "${models[@]}"; do
    [[ $model == 59m || $model == 3m ]] || { echo "MODELS: $model: must be 59m or 3m" >&2; exit 2; }
done
# Each shell waits for what it began, to which the signal goes too.
trap 'trap "" TERM; kill -TERM 0; wait; exit 130' INT TERM
stoppable() { trap 'wait; exit 143' TERM; "$@"; }
say() { printf '%5d s  %s\n' $SECONDS "$*"; }

# train SCHEDULE FOLDER OPTION...: a run that is there already is not made again.
train() {
    mkdir -p "$(dirname "$2")"
    "$staged" train "$1" --text "$text" --device "$device" --out "$2" "${@:3}" --resume > "${2//\//-}.log" 2>&1 ||
        { tail -n 3 "${2//\//-}.log" >&2; return 1; }
    tail -n 1 "$2/events.jsonl" | grep -q '"outcome":"finished"' || { echo "$2: stopped" >&2; return 1; }
    say "$2: $(tail -n 1 "$2/metrics.csv" | awk -F, '{ printf "step %d, %.3e FLOPs, %.4f nats", $2, $4, $6 }')"
}
# from_scratch RECIPE FOLDER SEED LENGTH...: each branches off the one before.
from_scratch() {
    local recipe=$1 folder=$2 seed=$3 previous=
    for length in "${@:4}"; do
        train "$recipe" "$folder/$seed-x$length" --seed "$seed" --length "$length" ${previous:+--branch-of "$previous"}
        previous=$folder/$seed-x$length
    done
}
# staged_runs SCHEDULE FOLDER SEED...
staged_runs() {
    for seed in "${@:3}"; do train "$1" "$2/$seed" --seed "$seed"; done
}
# All of these in the background; fails if one does.
waiting=()
beside() { stoppable "$@" & waiting+=($!); }
all_made() {
    local failed=0
    for pid in "${waiting[@]}"; do wait "$pid" || failed=1; done
    waiting=()
    return $failed
}

growths=(depth late later width both both_late planned)
of_59m() {
    local rate name best
    for rate in "${rates[@]}"; do
        for name in baseline "${growths[@]}"; do
            sed "s/^peak = .*/peak = $rate/" "$schedules/h200_$name.toml" > "59m-$name-$rate.toml"
        done
        beside from_scratch "59m-baseline-$rate.toml" "59m-scratch-$rate" "${seeds[0]}" 0.5
    done
    all_made
    best=$(for rate in "${rates[@]}"; do echo "$(tail -n 1 "59m-scratch-$rate/${seeds[0]}-x0.5/metrics.csv" | cut -d, -f6) $rate"; done | sort -g | head -n 1 | cut -d' ' -f2)
    say "59m: peak $best"
    ln -sfn "59m-scratch-$best" 59m-scratch
    for seed in "${seeds[@]}"; do
        beside from_scratch "59m-baseline-$best.toml" "59m-scratch-$best" "$seed" 0.5 0.75 1 1.3
    done
    for name in "${growths[@]}"; do
        beside staged_runs "59m-$name-$best.toml" "59m-$name" "${seeds[@]}"
    done
    all_made
}
of_3m() {
    local rate
    for seed in "${seeds[@]}"; do
        beside from_scratch "$schedules/bytes_3m_baseline.toml" 3m-scratch "$seed" 0.5 0.75 1 1.15
    done
    beside staged_runs "$schedules/bytes_3m_thin.toml" 3m-thin "${seeds[@]}"
    for rate in 0.002 0.008; do
        sed "s/^peak = .*/peak = $rate/" "$schedules/bytes_3m_baseline.toml" > "3m-baseline-$rate.toml"
        beside from_scratch "3m-baseline-$rate.toml" "3m-scratch-$rate" "${seeds[0]}" 0.5
    done
    all_made
}

failed=
of_each=()
for model in "${models[@]}"; do
    stoppable "of_$model" & of_each+=($!)
done
for pid in "${of_each[@]}"; do wait "$pid" || failed=runs; done

# Every evaluation of every run, for notebooks-data/.
{
    echo which,seed,stage,step,tokens,compute_flops,val_loss
    for metrics in 59m-*/*/metrics.csv 3m-*/*/metrics.csv; do
        which=${metrics%/*/metrics.csv}
        [ -e "$metrics" ] && [ ! -L "$which" ] || continue
        run=${metrics%/metrics.csv}
        run=${run##*/}
        seed=${run%%-*} which=$which${run#"${run%%-*}"}
        awk -F, -v which="$which" -v seed="$seed" 'NR > 1 && $6 != "" { print which "," seed "," $1 "," $2 "," $3 "," $4 "," $6 }' "$metrics"
    done
} > curves.csv
for model in "${models[@]}"; do
    for run in "${growths[@]/#/$model-}" "$model-thin"; do
        [ -d "$run" ] || continue
        echo "== $run"
        "$staged" compare "$run" "$model-scratch" || failed=$run
    done
done
[ -z "$failed" ] || { echo "failed: $failed" >&2; exit 1; }
