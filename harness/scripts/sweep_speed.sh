#!/usr/bin/env bash
# What sharing saves: 30 linear heads of ViT-B on generated NYUv2 (five blocks, three rates, two seeds) in one
# sweep, and one of them alone, in turns; start-up, encoder, heads and files included.
#
#   harness/scripts/sweep_speed.sh [ROUNDS]     # default 3; needs a release build
set -euo pipefail
rounds="${1:-3}"
program="$(cd "$(dirname "$0")/../.." && pwd)/target/release/pixio-eval"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
export PIXIO_EVAL_CACHE="$work/cache"
cat >sweep.toml <<'TOML'
[grid]
backbone = ["random:pixio-b"]
task = ["nyuv2/linear"]
block = [4, 6, 8, 10, 12]
learning-rate = [1e-4, 2e-4, 4e-4]
seed = [0, 1]
TOML
common=(--sample --cache-gb 0 --pictures 0)
seconds() { # COMMAND...
    local began ended
    began="$(date +%s.%N)"
    "$@" >/dev/null 2>&1
    ended="$(date +%s.%N)"
    awk -v a="$began" -v b="$ended" 'BEGIN { printf "%.1f\n", b - a }'
}
for round in $(seq "$rounds"); do
    rm -rf together alone
    together="$(seconds "$program" sweep sweep.toml "${common[@]}" --out together)"
    alone="$(seconds "$program" run nyuv2/linear --backbone random:pixio-b --block 8 --learning-rate 2e-4 \
        --stream-seed 0 "${common[@]}" --out alone)"
    awk -v t="$together" -v a="$alone" -v r="$round" \
        'BEGIN { printf "round %d: 30 together %.1f s, one alone %.1f s, ratio %.1f\n", r, t, a, 30 * a / t }'
done
