#!/usr/bin/env bash
# Is a build right on this machine's GPU, and how fast is it beside PyTorch: parity with the CPU, repeatability, interruptions,
# errors, then benchmarks, in one go of a few minutes.
#   harness/scripts/gpu-check.sh BINARY [--out DIR] [--quick] [--only parity|speed|PART,...]
#   harness/scripts/gpu-check.sh BINARY --device cpu --quick     # tries this script where there is no GPU
# PYTHON (default python3) needs numpy; the benchmarks also torch and transformers. Exit status 1 if a check fails.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu_check.py" "$@"
