#!/bin/sh
# Stands in for Slurm's programs, by the name it is called by. It notes every call in `asked` beside it.
here="$(dirname "$0")"
name="$(basename "$0")"
echo "$name $*" >>"$here/asked"
case "$name" in
    sbatch)
        count=$(($(cat "$here/count" 2>/dev/null || echo 100) + 1))
        echo "$count" >"$here/count"
        if [ "$count" = "$(cat "$here/refuse" 2>/dev/null)" ]; then
            echo "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified" >&2
            exit 1
        fi
        echo "$count$(cat "$here/cluster" 2>/dev/null)"
        ;;
    squeue)
        [ ! -e "$here/down" ] || { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
        cat "$here/queue" 2>/dev/null
        ;;
    scancel)
        [ "$*" != "$(cat "$here/deny" 2>/dev/null)" ] || { echo "scancel: error: Access/permission denied" >&2; exit 1; }
        ;;
esac
exit 0
