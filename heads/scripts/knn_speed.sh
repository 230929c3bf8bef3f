#!/usr/bin/env bash
# The search of examples/knn_speed.rs beside PyTorch's matmul + topk: alternating runs on the same
# cores, medians and their ratio.
#   PYTHON=python3 RUNS=3 CORES=0,1 heads/scripts/knn_speed.sh [TRAIN] [QUERIES] [DIM] [K]
# PYTHON needs torch; CHUNK (default 250) is PyTorch's number of queries in one product.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3} RUNS=${RUNS:-3} CORES=${CORES:-0,1}
THREADS=$(tr ',' '\n' <<<"$CORES" | wc -l)
export THREADS RAYON_NUM_THREADS=$THREADS

cargo build --quiet --release -p pixio-eval-heads --example knn_speed
target=${CARGO_TARGET_DIR:-target}/release/examples/knn_speed
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
for _ in $(seq "$RUNS"); do
  taskset -c "$CORES" "$target" "$@" | tee -a "$lines"
  taskset -c "$CORES" "$PYTHON" heads/scripts/knn_speed.py "$@" | tee -a "$lines"
done
"$PYTHON" - "$lines" <<'PY'
import json, statistics, sys

runs = [json.loads(line) for line in open(sys.argv[1])]
ours = [run for run in runs if run["engine"] == "pixio-eval"]
torch = [run for run in runs if run["engine"] != "pixio-eval"]
median = lambda side, key: statistics.median(run[key] for run in side)
for side in (ours, torch):
    best = min(run["seconds"] for run in side)
    print(f"{side[0]['engine']}: {median(side, 'seconds'):.2f} s (best {best:.2f}), peak {median(side, 'peak_mib'):.0f} MiB "
          f"(features {side[0]['features_mib']} MiB), median of {len(side)}")
print(f"pixio-eval is {median(torch, 'seconds') / median(ours, 'seconds'):.2f} times as fast")
PY
