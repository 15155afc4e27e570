#!/usr/bin/env bash
# Makes every figure and table of docs/SCALING.md: docs/figures/ and notebooks-data/.
# Usage: scripts/scaling_figures.sh STAGED FITS
#   STAGED  the program, as target/release/staged
#   FITS    a folder with chinchilla_svg_extracted.csv (epoch-research/analyzing-chinchilla),
#           olmo_ladder_c4_curves.csv (allenai/OLMo-ladder) and porian_isoflop.csv
#           (formll/resolving-scaling-law-discrepancies)
# Needs python3 for the tables.
set -euo pipefail
staged=$(realpath "$1")
fits=$(realpath "$2")
cd "$(dirname "$0")/.."
figures=docs/figures
tables=notebooks-data
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$figures" "$tables"

echo "fits"
"$staged" fit "$fits/chinchilla_svg_extracted.csv" \
    --columns "n_params=Model Size,compute=Training FLOP,loss=loss" --drop-highest 5 \
    --bootstraps 4000 -o "$work/chinchilla.json" --figure "$figures/fit_chinchilla.svg"
olmo="n_params=N,tokens=tokens,steps=step,loss=loss,run=size+len"
"$staged" fit "$fits/olmo_ladder_c4_curves.csv" --columns "$olmo" --last-only \
    -o "$work/olmo_ends.json"
"$staged" fit "$fits/olmo_ladder_c4_curves.csv" --columns "$olmo" --skip 0.3 \
    -o "$work/olmo_curves.json" --figure "$figures/fit_olmo.png"
while read -r hparams warmup decay count; do
    "$staged" fit "$fits/porian_isoflop.csv" --isoflop --columns compute=flops,n_params=n_params,loss=loss \
        --where dataset=rw --where hparams="$hparams" --where warmup="$warmup" --where decay="$decay" \
        --where param_count="$count" --json >"$work/porian.$hparams.$warmup.$decay.$count.json"
done <<'CONDITIONS'
base long kaplan kaplan
base long kaplan standard
base short kaplan standard
base short chinchilla standard
tuned short const standard
CONDITIONS

echo "plans"
"$staged" plan --budget 1e21 --law "$work/chinchilla.json" -o "$work/plan.toml" \
    --figure "$figures/plan_1e21.svg"
"$staged" plot "$work/plan.toml" -o "$figures/course_1e21.svg"
"$staged" plan --shape gpt2-large --stop 1.1x --law kaplan-authors --stages 4 -o "$work/authors.toml" \
    --figure "$figures/plan_gpt2_large.svg" >/dev/null
"$staged" plot "$work/authors.toml" --show saving -o "$figures/saving_gpt2_large.svg"

python3 - "$staged" "$work" "$tables" <<'PYTHON'
import csv, glob, json, os, subprocess, sys

staged, work, tables = sys.argv[1:]

def table(name, header, rows):
    with open(os.path.join(tables, name), "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

rows = []
for name in ["chinchilla", "olmo_ends", "olmo_curves"]:
    law = json.load(open(os.path.join(work, name + ".json")))
    for parameter, one in law["parameters"].items():
        rows.append([name, law["points"], law["runs"], parameter, one["value"], one["low"], one["high"],
                     one["standard_error"], law["objective"], law["starts_agreeing"], law["starts"],
                     (law["left_out"] or {}).get("mean_absolute_error"), (law["left_out"] or {}).get("largest_error")])
table("fits.csv", ["fit", "points", "runs", "parameter", "value", "low", "high", "standard_error", "objective",
                   "starts_agreeing", "starts", "left_out_mean_absolute_error", "left_out_largest_error"], rows)

published = {"base.long.kaplan.kaplan": 0.835, "base.long.kaplan.standard": 0.706, "base.short.kaplan.standard": 0.602,
             "base.short.chinchilla.standard": 0.571, "tuned.short.const.standard": 0.497}
rows = []
for condition, value in published.items():
    found = json.load(open(os.path.join(work, f"porian.{condition}.json")))
    one = found["exponent"]
    rows.append([condition, one["value"], one["low"], one["high"], value, len(found["optima"])])
table("isoflop_exponents.csv", ["condition", "exponent", "low", "high", "published", "budgets"], rows)

rows = []
cases = [("kaplan-authors", batch) for batch in ["critical-at-end", "critical", "524288", "2097152"]]
cases += [("chinchilla-corrected", None), ("chinchilla", None)]
for law, batch in cases:
    for stop in ["1.05x", "1.1x", "1.15x", "optimal"]:
        for stages in [2, 3, 4]:
            command = [staged, "plan", "--shape", "gpt2-large", "--law", law, "--stop", stop,
                       "--stages", str(stages), "--json"] + (["--batch", batch] if batch else [])
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                rows.append([law, batch or "", stop, stages, "", "", "", done.stderr.strip()])
                continue
            plan = json.loads(done.stdout)
            limit = [rule["saving"] for rule in plan["baselines"] if rule["rule"] == "continuous limit"][0]
            shapes = " ".join(f"{s['n_layers']}x{s['d_model']}" for s in plan["stages"])
            rows.append([law, batch or "", stop, stages, round(plan["saving"], 5), round(limit, 5),
                         round(plan["saving_at_best_size"], 5), shapes])
table("savings_gpt2_large.csv",
      ["law", "batch", "stop", "stages", "saving", "continuous_limit", "saving_at_best_size", "shapes"], rows)
PYTHON
echo "figures: $figures, tables: $tables"
