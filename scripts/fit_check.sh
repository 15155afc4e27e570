#!/usr/bin/env bash
# Fits published data and compares with published numbers. FITS holds the files that
# scripts/scaling_figures.sh names.
#
#     scripts/fit_check.sh STAGED FITS
set -euo pipefail
staged=$(realpath "$1")
fits=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# The value of a key of pretty-printed JSON, the first after another key where two are given.
value() { awk -v key="\"$2\":" -v after="\"${3:-}\":" 'after == "\"\":" { on = 1 } index($0, after) { on = 1 }
    on && index($0, key) { gsub(/[ ,]/, ""); sub(/.*:/, ""); print; exit }' "$1"; }
within() { awk -v name="$1" -v found="$2" -v least="$3" -v most="$4" 'BEGIN {
    good = found + 0 >= least + 0 && found + 0 <= most + 0
    printf "%-42s %14s in [%s, %s]%s\n", name, found, least, most, good ? "" : "  WRONG"
    exit !good }'; }

"$staged" fit "$fits/chinchilla_svg_extracted.csv" --columns "n_params=Model Size,compute=Training FLOP,loss=loss" \
    --drop-highest 5 --bootstraps 4000 --json > chinchilla.json
within "Chinchilla: objective" "$(value chinchilla.json objective)" 0.0010182740177 0.0010182740179
within "Chinchilla: objective from the worst start" "$(value chinchilla.json worst_objective)" 0.0010182740177 0.0010182740179
within "Chinchilla: starts agreeing" "$(value chinchilla.json starts_agreeing)" 25 25
while read -r name least most error_least error_most; do
    within "Chinchilla: $name" "$(value chinchilla.json value "$name")" "$least" "$most"
    within "Chinchilla: standard error of $name" "$(value chinchilla.json standard_error "$name")" "$error_least" "$error_most"
done <<'PARAMETERS'
A 477.8 477.9 110.7 135.3
B 2143 2144 1152 1408
E 1.8172 1.81724 0.02295 0.02805
a 0.34731 0.34732 0.01368 0.01672
b 0.36717 0.36718 0.01845 0.02255
PARAMETERS

while read -r hparams warmup decay count published; do
    "$staged" fit "$fits/porian_isoflop.csv" --isoflop --columns compute=flops,n_params=n_params,loss=loss \
        --where dataset=rw --where hparams="$hparams" --where warmup="$warmup" --where decay="$decay" \
        --where param_count="$count" --json > porian.json 2> notes.txt
    within "Porian: $hparams $warmup $decay $count" "$published" "$(value porian.json low)" "$(value porian.json high)"
done <<'CONDITIONS'
base long kaplan kaplan 0.835
base long kaplan standard 0.706
base short kaplan standard 0.602
base short chinchilla standard 0.571
tuned short const standard 0.497
CONDITIONS

"$staged" fit "$fits/olmo_ladder_c4_curves.csv" --columns n_params=N,tokens=tokens,loss=loss,run=size+len \
    --last-only --bootstraps 0 --json > olmo.json
within "OLMo: mean error at 3 B from smaller ends" "$(value olmo.json mean_absolute_error)" 0 0.017
echo "fits: as published"
