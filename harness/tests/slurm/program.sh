#!/usr/bin/env bash
# Stands in for the program in a job: `program.sh FOLDER KIND`. Task N counts to 5 and leaves FOLDER/KIND.N, but not
# while there is FOLDER/KIND.N.hold. The count is kept on SIGTERM, and a later turn goes on from there.
folder="$1" kind="$2"
mine="$folder/$kind.$SLURM_ARRAY_TASK_ID"
if [ -e "$mine" ]; then
    echo "nothing left to do"
    exit 0
fi
count="$(cat "$mine.kept" 2>/dev/null || echo 0)"
echo "begins at $count"
trap 'echo "$count" >"$mine.kept"; echo "told at $count"; exit 130' TERM
# Whom Slurm would tell ahead of the time limit.
echo "$PPID" >"$mine.script"
while [ "$count" -lt 5 ] || [ -e "$mine.hold" ]; do
    sleep 0.1
    [ "$count" -ge 5 ] || count=$((count + 1))
    echo "$count" >"$mine.now"
done
# What there is when a job that waits for others runs.
(cd "$folder" && printf '%s\n' probe.? probe.??) >"$mine"
