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

echo "forms of laws, beyond what they were fitted to"
python3 - "$staged" "$fits" "$work" "$tables" <<'PYTHON'
import csv, json, os, statistics, subprocess, sys

staged, fits, work, tables = sys.argv[1:]
CASES = {}

def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))

# Each point: N, D, loss. Each case: the points fitted to, and the larger models predicted.
for batch in ["1024", "4096"]:
    rows = [r for r in rows_of(os.path.join(tables, "dickens_law_sizes.csv")) if r["batch"] == batch]
    points = lambda use: [(float(r["n_params"]), float(r["tokens"]), float(r["loss"])) for r in rows if r["use"] == use]
    CASES[f"Dickens, batches of {batch}: 4x32, 4x64 -> 4x128"] = (points("pilot"), points("predicted"))
ends = {}
for r in rows_of(os.path.join(fits, "olmo_ladder_c4_curves.csv")):
    ends[r["size"], r["len"]] = (float(r["N"]), float(r["tokens"]), float(r["loss"]))
olmo = lambda sizes: [point for (size, _), point in ends.items() if size in sizes]
CASES["OLMo ladder: 190M, 370M -> 760M to 3B"] = (olmo(["190M", "370M"]), olmo(["760M", "1B", "3B"]))
CASES["OLMo ladder: 190M to 1B -> 3B"] = (olmo(["190M", "370M", "760M", "1B"]), olmo(["3B"]))
for source, dataset in [("summary_df", "rw"), ("summary_df_owt2", "owt2")]:
    points = [(float(r["n_params"]), float(r["n_tokens"]), float(r["loss"]))
              for r in rows_of(os.path.join(fits, "porian_isoflop.csv"))
              if (r["source"], r["dataset"], r["hparams"], r["decay"], r["param_count"], r["split"])
              == (source, dataset, "tuned", "const", "standard", "val")]
    points = [p for p in points if 3 < p[1] / p[0] < 300]
    CASES[f"Porian et al., tuned, {dataset}: N < 4e7 -> N > 1.2e8"] = (
        [p for p in points if p[0] < 4e7], [p for p in points if p[0] > 1.2e8])
points = []
for r in rows_of(os.path.join(fits, "chinchilla_svg_extracted.csv")):
    n_params, compute = float(r["Model Size"]), float(r["Training FLOP"])
    points.append((n_params, compute / (6 * n_params), float(r["loss"])))
points = sorted(points, key=lambda p: -p[2])[5:]
CASES["Chinchilla: N < 5e8 -> N > 2e9"] = ([p for p in points if p[0] < 5e8], [p for p in points if p[0] > 2e9])

def loss(form, p, n, d):
    kaplan = lambda: ((p["N_c"] / n) ** (p["a_N"] / p["a_D"]) + p["D_c"] / d) ** p["a_D"]
    total = lambda a: p["E"] + p["A"] / n ** a + p["B"] / d ** p["b"]
    if form == "kaplan-tokens":
        return kaplan()
    if form == "mixed-tokens":
        return p["w"] * kaplan() + (1 - p["w"]) * total(0.3478)
    return total(p.get("a", 0.3478))

rows = []
for case, (fitted, predicted) in CASES.items():
    path = os.path.join(work, "case.csv")
    with open(path, "w", newline="") as out:
        csv.writer(out).writerows([("n", "d", "loss", "run")] + [(*point, i) for i, point in enumerate(fitted)])
    # Two sizes do not tell the exponent that tokens fits.
    own_exponent = ["tokens"] if len({n for n, _, _ in fitted}) > 2 else []
    for form in ["kaplan-tokens", *own_exponent, "fixed-tokens", "mixed-tokens"]:
        command = [staged, "fit", path, "--columns", "n_params=n,tokens=d,loss=loss,run=run", "--form", form,
                   "--bootstraps", "0", "--json"]
        law = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        p = {name: one["value"] for name, one in law["parameters"].items()}
        errors = [100 * (loss(form, p, n, d) / true - 1) for n, d, true in predicted]
        rows.append([case, len(fitted), len(predicted), form, round(statistics.mean(errors), 2),
                     round(statistics.mean(map(abs, errors)), 2), round(max(map(abs, errors)), 2)])
        print(*rows[-1], sep="  ")
with open(os.path.join(tables, "law_forms.csv"), "w", newline="") as out:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["case", "fitted", "predicted", "form", "mean_error_percent", "mean_absolute_error_percent",
                     "largest_error_percent"])
    writer.writerows(rows)
PYTHON
echo "figures: $figures, tables: $tables"
