#!/usr/bin/env bash
# Grows a state of GPT-2's size, 124 M parameters with moments, to twice the width, in turns with copying
# the same bytes, and prints medians.
#
#     scripts/grow_speed.sh STAGED TEXT GPT2_BPE_FOLDER [TURNS]
#
# Needs 15 GB of disk where temporary files go, and GNU time.
set -euo pipefail
staged=$(realpath "$1")
text=$(realpath "$2")
bpe=$(realpath "$3")
turns=${4:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > one_step.toml <<TOML
version = 1
name = "one-step"
seed = 1
data = { source = "text", tokenizer = "gpt2:$bpe", strip_cr = true, lossy = true }
model = { context_len = 1024 }
optimizer = { beta1 = 0.9, beta2 = 0.98, eps = 1e-9, weight_decay = 0.1, clip_norm = 1.0 }
learning_rate = { shape = "constant", peak = 0.001 }
batch = { tokens = 1024, micro_batch = 1 }
evaluation = { every_steps = 1, tokens = 1024 }
checkpoint = { every_steps = 1, keep = 1 }

[[stages]]
n_layers = 12
d_model = 768
n_heads = 12
until = { steps = 1 }
TOML
"$staged" train one_step.toml --text "$text" --out run > /dev/null 2>&1
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
declare -A seconds memory
for ((i = 0; i < turns; i++)); do
    for mode in duplicate split fresh; do
        rm -rf grown && sync
        out=$(/usr/bin/time -f '%e %M' "$staged" grow run --width 2 --mode "$mode" -o grown --no-check 2>&1 > /dev/null | tail -1)
        seconds[$mode]+="${out% *}"$'\n'
        memory[$mode]+="${out#* }"$'\n'
    done
    rm -rf copy && sync
    out=$(/usr/bin/time -f '%e' bash -c 'mkdir copy && cp grown/* copy/ && sync copy/* copy' 2>&1)
    seconds[copy]+="$out"$'\n'
done
printf '%s bytes written\n' "$(du -sb grown | cut -f1)"
copy=$(printf '%s' "${seconds[copy]}" | median)
for mode in duplicate split fresh; do
    median=$(printf '%s' "${seconds[$mode]}" | median)
    printf '%-10s %6s s, copying %6s s, %.2f of its speed, %s MB of memory\n' $mode "$median" "$copy" \
        "$(awk -v a="$copy" -v b="$median" 'BEGIN { print a / b }')" \
        "$(printf '%s' "${memory[$mode]}" | median | awk '{ print int($1 / 1000) }')"
done
