#!/usr/bin/env bash
# Trains on real text for a few steps and measures what prepares it. DATA holds text/dickens.txt and
# gpt2-bpe/.
#
#     scripts/text_check.sh STAGED DATA
set -euo pipefail
staged=$(realpath "$1")
data=$(realpath "$2")
root=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
text=$data/text/dickens.txt

"$staged" data prepare "$text" --strip-cr -o bytes.bin
"$staged" data prepare "$text" --lossy --tokenizer "gpt2:$data/gpt2-bpe" -o gpt2.bin
"$staged" data prepare "$text" --lossy --tokenizer bpe:1024 -o bpe.bin
for file in bytes gpt2 bpe; do "$staged" data inspect $file.bin > /dev/null; done

# With GPT-2's vocabulary, these are the tokens of tiktoken and of Hugging Face's tokenizer.
printf 'Hello world, 1859!  It was the best of times.' > hello.txt
"$staged" data prepare hello.txt --tokenizer "gpt2:$data/gpt2-bpe" -o hello.bin > /dev/null
"$staged" data inspect hello.bin |
    grep -F '[15496, 995, 11, 1248, 3270, 0, 220, 632, 373, 262, 1266, 286, 1661, 13]'

sed 's/steps = 1200/steps = 40/; s/every_steps = 50/every_steps = 20/' \
    "$root/schedules/dickens_scratch.toml" > run.toml
"$staged" train run.toml --text "$text" --out run --json > summary.json
"$staged" eval run
"$staged" sample run --prompt "It was the" --tokens 40 > sample.txt
loss=$(grep -oE '"val_loss": [0-9.]+' summary.json | grep -oE '[0-9.]+$')
awk -v loss="$loss" 'BEGIN { if (loss > 3.0) { print "held-out loss " loss " after 40 steps: at most 3.0 is due"; exit 1 } }'
echo "real text: held-out loss $loss nats per byte after 40 steps"

"$staged" grow run --width 2 --depth 6 -o run/checkpoints/grown --json > growth.json
"$staged" eval run/checkpoints/grown
number() { grep -oE "\"$1\": [-+e0-9.]+" growth.json | grep -oE '[-+e0-9.]+$'; }
awk -v a="$(number loss_before)" -v b="$(number loss_after)" -v z="$(number max_abs_delta_logit)" 'BEGIN {
    apart = b / a - 1; if (apart < 0) apart = -apart
    printf "growth: loss moved by %.1e of itself, logits by at most %.1e\n", apart, z
    exit !(apart <= 1e-6 && z <= 1e-4)
}'
