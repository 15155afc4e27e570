#!/usr/bin/env bash
# Measures what staged training saves: a learning-rate sweep of the baseline, pilot runs and their law, staged runs
# of every kind and their baseline under several seeds, one thread each and two at a time; then tables and figures.
# Goes on where it was stopped. docs/SAVINGS.md has what it found and what it costs (hours on two cores).
#
#     scripts/savings.sh STAGED OUT dickens TEXT [SEED...]          batches of 4,096 tokens
#     scripts/savings.sh STAGED OUT dickens_batch1024 TEXT [SEED...]  of 1,024, and a growth of feed-forward layers that comes early
#     scripts/savings.sh STAGED OUT dickens_rising TEXT [SEED...]   from 512 to 4,096, and the same growth
#     scripts/savings.sh STAGED OUT synthetic [SEED...]
set -euo pipefail
staged=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
kind=$3
shift 3
text=()
if [ "$kind" != synthetic ]; then
    text=(--text "$(realpath "$1")")
    shift
fi
seeds=("$@")
[ ${#seeds[@]} -gt 0 ] || seeds=(1 2 3)
cd "$(dirname "$0")/.."
recipe=schedules/${kind}_baseline.toml
kinds=(cpu width depth both chain online)
rates=(0.004 0.008 0.016 0.032)
case $kind in
    dickens) kinds+=(feedforward feedforward_half late) ;;
    dickens_batch1024) kinds=(feedforward early feedforward_20tpp feedforward_24tpp feedforward_40tpp thin thin_20tpp thin_24tpp thin_40tpp thin_online) rates=(0.001 0.002 0.004) ;;
    dickens_rising) kinds=(planned) rates=(0.0028 0.004 0.0056) ;;
    synthetic) kinds=(depth depth_10tpp depth_20tpp depth_chain depth_late planned planned_20tpp planned_40tpp early_20tpp early_40tpp) rates=(0.002 0.004 0.008) ;;
esac

jobs=$(mktemp)
trap 'rm -f "$jobs"' EXIT
# One line a job: its words, then its folder.
job() { printf '%q ' "$staged" train "$@" --resume >> "$jobs"; echo '> /dev/null' >> "$jobs"; }
run_jobs() {
    xargs -d '\n' -P 2 -I{} bash -c '{}' < "$jobs"
    : > "$jobs"
}

# Where the learning rate decays only ends count, so the baseline is runs of several lengths, each of which branches off the
# one before.
lengths=(0.375 0.5 0.55 1)
case $kind in
    dickens) lengths=(0.3 "${lengths[@]}" 2) ;;
    dickens_batch1024) lengths+=(1.1 2 2.2) ;;
    synthetic) lengths+=(2) ;;
esac
# Six pilot runs of up to 7.7 M tokens and one that grows.
share=0.3049
if grep -q 'shape = "constant"' "$recipe"; then
    lengths=(1)
    share=0.15
fi

# The baseline at other rates, a quarter of its length.
peaks=$(IFS=,; echo "${rates[*]}")
"$staged" sweep "$recipe" "${text[@]}" --peaks "$peaks" --length 0.25 -o "$out/sweep" --resume
previous=
for length in "${lengths[@]}"; do
    for seed in "${seeds[@]}"; do
        branch=()
        [ -z "$previous" ] || branch=(--branch-of "$out/scratch/$seed-x$previous")
        job "$recipe" "${text[@]}" --seed "$seed" --length "$length" "${branch[@]}" --out "$out/scratch/$seed-x$length"
    done
    run_jobs
    previous=$length
done

# pilots LAW FOLDER SHARE OPTION...: the pilot runs, one of them grown, and their law. Runs that are there are not made again.
pilots() {
    [ ! -e "$out/$1.json" ] || return 0
    # That of another growth is not this one's, should the pilot runs be stopped.
    rm -f "$out/$2/law.json"
    "$staged" pilot "$recipe" "${text[@]}" --share "$3" "${@:4}" -o "$out/$2" --resume
    cp "$out/$2/law.json" "$out/$1.json"
}
case $kind in
    dickens)
        pilots law pilots "$share"
        # The same runs, and the pace after a growth of feed-forward layers alone instead.
        pilots feedforward_law pilots "$share" --grow feed-forward
        ;;
    dickens_batch1024)
        pilots feedforward_law pilots "$share" --grow feed-forward
        # The same runs, and the pace after an early one.
        pilots early_law pilots "$share" --grow feed-forward --grow-by 0.35
        # The same with heads of half the size.
        pilots thin_law pilots "$share" --grow feed-forward,head-size --grow-by 0.35
        # Of shapes nearer to the last one.
        pilots near_law near 0.45 --shapes 4x96x3,4x64x2 --grow feed-forward --grow-by 0.35
        ;;
    dickens_rising) pilots rising_law pilots "$share" --grow feed-forward --grow-by 0.35 ;;
    # Of one width, as narrow models learn this language late.
    synthetic) pilots depth_law pilots 0.6 --shapes 2x128x4,1x128x4 --grow-by 0.7 ;;
esac
for kind_of_growth in "${kinds[@]}"; do
    for seed in "${seeds[@]}"; do
        job "schedules/${kind}_$kind_of_growth.toml" "${text[@]}" --seed "$seed" --out "$out/$kind_of_growth/$seed"
    done
done
run_jobs

for kind_of_growth in "${kinds[@]}"; do
    echo "== $kind_of_growth"
    "$staged" compare "$out/$kind_of_growth" "$out/scratch" --json > "$out/$kind_of_growth.json"
    "$staged" compare "$out/$kind_of_growth" "$out/scratch"
    "$staged" plot "$out/$kind_of_growth" "$out/scratch" -o "$out/$kind_of_growth.svg"
done

# Every evaluation of every run, for notebooks-data/.
runs=()
for folder in scratch "${kinds[@]}"; do runs+=("$out/$folder"/*/); done
runs+=("$out"/sweep/peak-*/ "$out"/pilots/pilot-*/ "$out"/near/pilot-*/)
{
    echo which,seed,stage,step,tokens,compute_flops,val_loss
    for run in "${runs[@]}"; do
        [ -e "$run/metrics.csv" ] || continue
        name=${run#"$out"/}
        name=${name%/}
        case $name in
            */*) which=${name%/*} seed=${name##*/} ;;
            *) which=$name seed=1 ;;
        esac
        [[ $which == sweep ]] && which=rate-${seed#peak-} seed=1
        [[ $which == pilots || $which == near ]] && which=$seed seed=1
        [[ $which == scratch && $seed == *-x* ]] && which+=-${seed#*-} seed=${seed%%-*}
        awk -F, -v which="$which" -v seed="$seed" \
            'NR > 1 && $6 != "" { print which "," seed "," $1 "," $2 "," $3 "," $4 "," $6 }' "$run/metrics.csv"
    done
} > "$out/curves.csv"
