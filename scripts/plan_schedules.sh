#!/usr/bin/env bash
# Plans the schedules in schedules/ again: GPT-2's sizes under the published law that the staged-training authors
# planned with, and the small models of docs/SAVINGS.md under the laws of their pilot runs (notebooks-data/). What was
# measured stands in comments that are to be written again.
#
#     scripts/plan_schedules.sh STAGED [gpt2|dickens|batch1024|rising|bytes|synthetic]...
#
# The other schedules of the synthetic language are by hand: the law of narrower pilot runs is none for it (docs/SAVINGS.md).
set -euo pipefail
staged=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- gpt2 dickens batch1024 rising bytes synthetic
cd "$(dirname "$0")/.."

# The authors' batch of 2^19 tokens, to the compute-optimal stop.
gpt2() {
    local shape=$1 name=$2
    local plan=("$staged" plan --shape "$shape" --law kaplan-authors --batch 524288 --stop optimal)
    "${plan[@]}" --operators depth --stages 2 -o "schedules/gpt2_${name}_depth.toml" > /dev/null
    "${plan[@]}" --operators width --stages 2 -o "schedules/gpt2_${name}_width.toml" > /dev/null
    "${plan[@]}" --stages 2 -o "schedules/gpt2_${name}_both.toml" > /dev/null
    "${plan[@]}" -o "schedules/gpt2_${name}_chain.toml" > /dev/null
}

# at_slope FROM TO PLAN...: the same growth at the slope that the plan has there, instead of at its step.
at_slope() {
    local from=$1 to=$2 slope
    slope=$("${@:3}" --json | grep -m 1 growth_slope | grep -oE '[-0-9.e]+' | tail -n 1)
    sed "s/^name = .*/name = \"$to\"/; 0,/^steps = \(.*\)/s//steps = 8000\nslope = $slope/" "schedules/$from.toml" > "schedules/$to.toml"
}

# 0.8 M parameters, 128 wide, 4 layers. The first is what the planner advises, at the pace that the law's grown run shows; the
# others are as theory has it, with dynamics preserved: the best chain, among whole factors of width, since small growths late
# were measured to cost (docs/LOG.md), and growths that double once.
small() {
    local kind=$1 stop=$2
    local to=(--template "schedules/${kind}_baseline.toml" --shape 4x128x4 --stop "$stop" --batch 4096)
    local plan=("$staged" plan --law "notebooks-data/${kind}_law.json" "${to[@]}")
    "${plan[@]}" --operators width-integer --stages 2..4 -o "schedules/${kind}_cpu.toml" > /dev/null
    # Feed-forward layers alone, under the law whose grown run grew so.
    local feedforward=notebooks-data/${kind}_feedforward_law.json
    if [ -e "$feedforward" ]; then
        "$staged" plan --law "$feedforward" "${to[@]}" --operators feed-forward --stages 2 -o "schedules/${kind}_feedforward.toml" > /dev/null
    fi
    # Under the mean of two forms, as pilot runs are fitted now.
    "$staged" plan --law "notebooks-data/${kind}_mixed_law.json" "${to[@]}" --operators width-integer --stages 2 -o "schedules/${kind}_late.toml" > /dev/null
    plan+=(--pace 1)
    "${plan[@]}" --operators width-integer -o "schedules/${kind}_chain.toml" > /dev/null
    "${plan[@]}" --through 4x64x2 -o "schedules/${kind}_width.toml" > /dev/null
    "${plan[@]}" --through 2x128x4 -o "schedules/${kind}_depth.toml" > /dev/null
    "${plan[@]}" --through 2x64x2 -o "schedules/${kind}_both.toml" > /dev/null
    at_slope "${kind}_width" "${kind}_online" "${plan[@]}" --through 4x64x2
}

# Feed-forward layers alone in batches of 1,024 tokens, at the pace of their pilot run, and early: late growths were measured to
# cost (docs/SAVINGS.md). The plans for 20, 24 and 40 tokens per parameter are of an earlier build, for which a pace above 1 lasted.
early() {
    local to=(--template schedules/dickens_batch1024_baseline.toml --shape 4x128x4 --operators feed-forward --stages 2 --grow-by 0.35)
    local plan=("$staged" plan --law notebooks-data/dickens_batch1024_law.json "${to[@]}")
    "${plan[@]}" --stop 10tpp -o schedules/dickens_batch1024_feedforward.toml > /dev/null
    # Under the mean of two forms, as pilot runs are fitted now.
    "$staged" plan --law notebooks-data/dickens_batch1024_mixed_law.json "${to[@]}" --stop 10tpp -o schedules/dickens_batch1024_early.toml > /dev/null
}

# Heads of half the size beside thin feed-forward layers, at the pace of the pilot run that grew so, as early.
thin() {
    local plan=("$staged" plan --law notebooks-data/dickens_batch1024_thin_law.json --template schedules/dickens_batch1024_baseline.toml
        --shape 4x128x4 --operators feed-forward,head-size --stages 2 --grow-by 0.35)
    "${plan[@]}" --stop 10tpp -o schedules/dickens_batch1024_thin.toml > /dev/null
    "${plan[@]}" --stop 20tpp -o schedules/dickens_batch1024_thin_20tpp.toml > /dev/null
    "${plan[@]}" --stop 24tpp -o schedules/dickens_batch1024_thin_24tpp.toml > /dev/null
    "${plan[@]}" --stop 40tpp -o schedules/dickens_batch1024_thin_40tpp.toml > /dev/null
    at_slope dickens_batch1024_thin dickens_batch1024_thin_online "${plan[@]}" --stop 10tpp
}

# Feed-forward layers alone, in batches that rise from 512 to 4,096 tokens.
rising() {
    "$staged" plan --law notebooks-data/dickens_rising_law.json --template schedules/dickens_rising_baseline.toml --shape 4x128x4 \
        --stop 10tpp --operators feed-forward --stages 2 --grow-by 0.35 -o schedules/dickens_rising_planned.toml > /dev/null
}

# Heads of half the size beside thin feed-forward layers at 3 M parameters on bytes, as thin.
bytes() {
    local plan=("$staged" plan --law notebooks-data/bytes_3m_thin_law.json --template schedules/bytes_3m_baseline.toml
        --shape 4x256x4 --operators feed-forward,head-size --stages 2 --grow-by 0.35)
    "${plan[@]}" --stop 6tpp -o schedules/bytes_3m_thin_6tpp.toml > /dev/null
    "${plan[@]}" --stop 10tpp -o schedules/bytes_3m_thin.toml > /dev/null
}

# Depth on the synthetic language under the law of pilot runs of one width; a latest moment, since one layer alone is the cheaper
# model to the end.
synthetic() {
    local plan=("$staged" plan --law notebooks-data/synthetic_depth_law.json --template schedules/synthetic_baseline.toml --shape 4x128x4
        --operators depth --grow-by 0.7)
    "${plan[@]}" --stop 10tpp -o schedules/synthetic_planned.toml > /dev/null
    "${plan[@]}" --stop 20tpp -o schedules/synthetic_planned_20tpp.toml > /dev/null
    # Where the curve has flattened: under the law of these runs and a longer one of one layer, at the pace of the former's grown run.
    local long=("$staged" plan --law notebooks-data/synthetic_depth_long_law.json --template schedules/synthetic_baseline.toml
        --shape 4x128x4 --operators depth --stages 2 --pace 0.95)
    "${long[@]}" --stop 40tpp -o schedules/synthetic_planned_40tpp.toml > /dev/null
    # No later than that grown run, whose model had 25 tokens per parameter: a pace is of its moment.
    "${long[@]}" --stop 20tpp --grow-by 0.276 -o schedules/synthetic_early_20tpp.toml > /dev/null
    "${long[@]}" --stop 40tpp --grow-by 0.138 -o schedules/synthetic_early_40tpp.toml > /dev/null
}

for which in "$@"; do
    case $which in
        batch1024) early; thin ;;
        rising) rising ;;
        bytes) bytes ;;
        synthetic) synthetic ;;
        gpt2) gpt2 gpt2 base; gpt2 gpt2-large large ;;
        dickens) small dickens 10tpp ;;
        *) echo "$which: must be gpt2, dickens, batch1024, rising, bytes or synthetic" >&2; exit 2 ;;
    esac
done
