#!/usr/bin/env bash
# Fills a small disk in the middle of a run: one clear error, exit code 2, the older checkpoints whole;
# with room again the run goes on and ends as if nothing had happened. Needs the right to mount.
#
#     scripts/disk_full_check.sh STAGED
set -euo pipefail
staged=$(realpath "$1")
root=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
mkdir "$work/disk"
mount -t tmpfs -o size=6m tmpfs "$work/disk"
trap 'umount "$work/disk"; rm -rf "$work"' EXIT

sed 's/steps = 500/steps = 8/; s/every_steps = 200/every_steps = 2/' "$root/schedules/demo.toml" \
    > "$work/run.toml"
code=0
"$staged" train "$work/run.toml" --out "$work/disk/run" > /dev/null 2> "$work/err" || code=$?
tail -n 1 "$work/err"
grep -q 'No space left on device' "$work/err"
[ $code -eq 2 ]
[ -d "$work/disk/run/checkpoints/step-00000004" ]

mount -o remount,size=64m "$work/disk"
"$staged" train "$work/run.toml" --out "$work/disk/run" --resume > /dev/null 2>&1
"$staged" train "$work/run.toml" --out "$work/straight" > /dev/null 2>&1
for file in model.safetensors optimizer.safetensors state.json; do
    cmp "$work"/{disk/run,straight}/checkpoints/step-00000008/$file
done
cmp <(cut -d, -f1-8 "$work/disk/run/metrics.csv") <(cut -d, -f1-8 "$work/straight/metrics.csv")
echo "disk full: exit code 2, older checkpoints whole, resumed to the same bits"
