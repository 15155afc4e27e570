#!/usr/bin/env bash
# Kills a staged run at random moments with kill -9, growths included, and resumes it each time; the
# curve, the reports of the growths and the last checkpoint must be those of a run that was left alone, bit
# for bit. Three growths, one of them with re-estimated moments, one at a slope of the curve.
#
#     scripts/kill_check.sh STAGED KILLS
set -euo pipefail
staged=$(realpath "$1")
kills=$2
interval=10
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat > run.toml <<TOML
version = 1
name = "kill-check"
seed = 1
data = { source = "synthetic", n_words = 64, language_seed = 1 }
model = { context_len = 32 }
parametrization = { kind = "mup", base_width = 32 }
optimizer = { beta1 = 0.9, beta2 = 0.98, eps = 1e-9, weight_decay = 0.1, clip_norm = 1.0 }
learning_rate = { shape = "wsd", peak = 0.008, warmup_steps = 20, final_fraction = 0.1 }
batch = { tokens = 2048, micro_batch = 32, ramp = { from_tokens = 512, steps = 50 } }
evaluation = { every_steps = 7, tokens = 2048 }
checkpoint = { every_steps = $interval, keep = 2 }
machine = { threads = 2 }
[[stages]]
n_layers = 2
d_model = 32
n_heads = 2
until = { steps = $((10 + 2 * kills)) }
[[stages]]
n_layers = 2
d_model = 48
n_heads = 3
until = { steps = $((10 + 2 * kills)), slope = -0.01 }
growth = { width = "fresh", moments = { reestimated = 10 } }
[[stages]]
n_layers = 3
d_model = 48
n_heads = 3
until = { tokens = $(((10 + 2 * kills) * 2048)) }
growth = { rewarmup_steps = 5 }
[[stages]]
n_layers = 3
d_model = 96
n_heads = 6
until = { steps = $((10 + 2 * kills)) }
growth = { width = "split" }
TOML

step_of() { tail -n 1 "$1/metrics.csv" 2>/dev/null | cut -d, -f2 | grep -E '^[0-9]+$' || echo 0; }
curve() { cut -d, -f1-8 "$1/metrics.csv"; }

"$staged" train run.toml --out straight 2> /dev/null > /dev/null

printf '%6s %14s %15s\n' kill "step at kill" "resumed from"
for ((i = 1; i <= kills; i++)); do
    "$staged" train run.toml --out killed --resume > /dev/null 2> killed.err &
    process=$!
    sleep "$(awk -v r=$RANDOM 'BEGIN { printf "%.3f", 0.05 + 1.2 * r / 32767 }')"
    if ! kill -9 $process 2> /dev/null; then
        wait $process || { cat killed.err; exit 1; }
    fi
    wait $process 2> /dev/null || true
    at=$(step_of killed)
    newest=$(ls killed/checkpoints 2> /dev/null | grep -v partial | tail -n 1 | grep -oE '[1-9][0-9]*$' || echo 0)
    printf '%6d %14d %15d\n' "$i" "$at" "$newest"
    # The step in flight may be in the record's last, torn row.
    if ((at - newest > interval)); then
        echo "lost $((at - newest)) steps; checkpoints are $interval apart" >&2
        exit 1
    fi
done
"$staged" train run.toml --out killed --resume > /dev/null 2>&1

cmp <(curve straight) <(curve killed)
# The time that a growth took is its own.
growths() { for file in "$1"/growth-*.json; do grep -v '"seconds"' "$file"; done; }
cmp <(growths straight) <(growths killed)
[ "$(ls straight/growth-*.json | wc -l)" = 3 ]
last=$(ls straight/checkpoints | tail -n 1)
for file in model.safetensors optimizer.safetensors state.json; do
    cmp "straight/checkpoints/$last/$file" "killed/checkpoints/$last/$file"
done
echo "after $kills kills: curve, growths and $last identical bit for bit"
