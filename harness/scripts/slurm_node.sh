#!/usr/bin/env bash
# A Slurm of one node for tests: this machine, without systemd, in a folder of its own.
#
#   eval "$(slurm_node.sh start [FOLDER])"   # prints export SLURM_CONF=... and SLURM_NODE=FOLDER
#   slurm_node.sh stop [FOLDER]              # $SLURM_NODE; ends the daemons and removes the folder
#
# Needs slurmctld, slurmd, sbatch and munged (Debian: slurm-wlm, munge); root, or an ordinary user who then runs
# everything. Exit status 77 with the reason where they are not there or do not start.
# Partition `main` has 4 CPUs, 8 GB and 2 GPUs in name only; what is sent to `urgent` preempts it by requeueing.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

skip() {
    echo "no Slurm for tests: $1" >&2
    exit 77
}

# The process that a pid file names, if it is the one that was started. One that has ended may stay in the
# list as defunct: a container without an init has nobody to wait for it.
alive() { # FOLDER DAEMON
    local pid name state
    pid="$(cat "$1/$2.pid" 2>/dev/null)" || return 1
    read -r _ name state _ 2>/dev/null <"/proc/$pid/stat" || return 1
    [ "$name" = "($2)" ] && [ "$state" != Z ] && echo "$pid"
}

stop() { # FOLDER
    local folder="$1" daemon pid
    [ -f "$folder/slurm.conf" ] || { echo "no Slurm of this script in $folder" >&2; exit 2; }
    # Jobs first: without their daemon they would run on.
    if alive "$folder" slurmctld >/dev/null; then
        SLURM_CONF="$folder/slurm.conf" timeout 10 scancel --user="$(id -un)" >/dev/null 2>&1 || true
        for _ in $(seq 50); do
            [ -n "$(SLURM_CONF="$folder/slurm.conf" timeout 10 squeue --noheader --states=running,completing 2>/dev/null)" ] || break
            sleep 0.2
        done
    fi
    for daemon in slurmd slurmctld munged; do
        pid="$(alive "$folder" "$daemon")" || continue
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do
            alive "$folder" "$daemon" >/dev/null || break
            sleep 0.1
        done
        if alive "$folder" "$daemon" >/dev/null; then kill -KILL "$pid" 2>/dev/null || true; fi
    done
    rm -rf "$folder"
}

free_port() { # FROM
    local port
    for port in $(shuf -n 50 -i "$1-$(($1 + 4999))"); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    return 1
}

fail() { # FOLDER DAEMON: the daemon's last words
    local log="$1/log/$2.log"
    echo "$2 did not start:" >&2
    [ ! -s "$log" ] || tail -n 15 "$log" >&2
    (stop "$1" >&2) || true
    skip "$2 did not start"
}

start() { # [FOLDER]
    local folder program user host
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" >/dev/null || skip "$program is not installed (Debian: slurm-wlm, munge)"
    done
    folder="${1:-$(mktemp -d "${TMPDIR:-/tmp}/slurm.XXXXXX")}"
    # A socket's path has at most 107 bytes; slurm.conf takes no spaces.
    [[ "$folder" =~ ^/[^[:space:]\'%#]{1,80}$ ]] || skip "expected a short absolute path without spaces: $folder"
    # `stop` removes all of it.
    [ -z "$(ls -A "$folder" 2>/dev/null)" ] || { echo "expected a new or empty folder: $folder" >&2; exit 2; }
    mkdir -p "$folder"/{log,state,spool,munge}
    # Daemons and jobs of other users pass through; nobody else may write, or munged refuses.
    chmod 755 "$folder" "$folder/munge"
    user="$(id -un)"
    host="$(hostname -s)"

    # cred_expire is also how long a requeued job waits. No cgroups: a container has none to give.
    cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port 20000)
SlurmdPort=$(free_port 25000)
SlurmUser=$user
SlurmdUser=$user
AuthInfo=socket=$folder/munge/socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MinJobAge=36000
KillWait=5
InactiveLimit=0
MailProg=/bin/true
GresTypes=gpu
NodeName=$host NodeHostname=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=8192 Gres=gpu:2 State=UNKNOWN
PartitionName=DEFAULT Nodes=$host DefMemPerCPU=256 MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=main Default=YES PriorityTier=1
PartitionName=urgent PriorityTier=10
CONF
    # A GPU needs a device file; nothing is done with it where there are no cgroups.
    printf 'Name=gpu File=/dev/%s\n' null zero >"$folder/gres.conf"

    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge/key")
    # They outlive this script, so none may hold on to its pipes.
    munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munged.pid" \
        --seed-file="$folder/munge/seed" --log-file="$folder/log/munged.log" --num-threads=2 \
        >"$folder/log/munged.out" 2>&1 </dev/null || { cat "$folder/log/munged.out" >&2; fail "$folder" munged; }
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld >"$folder/log/slurmctld.out" 2>&1 </dev/null || { cat "$folder/log/slurmctld.out" >&2; fail "$folder" slurmctld; }
    slurmd >"$folder/log/slurmd.out" 2>&1 </dev/null || { cat "$folder/log/slurmd.out" >&2; fail "$folder" slurmd; }
    for _ in $(seq 100); do
        if [ "$(timeout 5 sinfo --noheader --partition=main --format=%T 2>/dev/null)" = idle ]; then
            echo "export SLURM_CONF='$folder/slurm.conf' SLURM_NODE='$folder'"
            return
        fi
        alive "$folder" slurmctld >/dev/null || fail "$folder" slurmctld
        sleep 0.2
    done
    timeout 5 sinfo --list-reasons >&2 || true
    fail "$folder" slurmd
}

case "${1:-}" in
    start) start "${2:-}" ;;
    stop) stop "${2:-${SLURM_NODE:?the folder that start printed}}" ;;
    *) echo "usage: $0 start|stop [FOLDER]" >&2; exit 2 ;;
esac
