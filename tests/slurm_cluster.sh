#!/bin/bash
# A Slurm of two nodes on this machine, for tests: no systemd, no control groups, no database.
#   slurm_cluster.sh start FOLDER PORT   (four ports from PORT on; as root)
#   slurm_cluster.sh node FOLDER NAME    start one node (n1, n2) again
#   slurm_cluster.sh kill FOLDER NAME    a node dies: its daemon and all that runs on it
#   slurm_cluster.sh stop FOLDER         end every daemon and what they started
# Needs Debian's slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins and munge. Afterwards
# SLURM_CONF=FOLDER/slurm.conf is the cluster. Nothing limits what jobs use of memory and processors.
set -euo pipefail
action=$1 folder=$2
export SLURM_CONF=$folder/slurm.conf
PATH=$PATH:/usr/sbin:/sbin

write_conf() { # PORT
    local port=$1 host
    host=$(hostname -s)
    cat >"$SLURM_CONF" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# What ran on a node that died starts again when its credential has expired: two minutes by default.
AuthInfo=socket=$folder/socket/munge,cred_expire=10
CryptoType=crypto/munge
SlurmctldPort=$port
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/run/slurmctld-own.pid
SlurmdPidFile=$folder/run/slurmd-%n-own.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Small, so that six participants need two arrays.
MaxArraySize=4
ReturnToService=2
SlurmdTimeout=10
KillWait=3
MinJobAge=300
# The nodes have what is said here, whatever the machine has.
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2 RealMemory=8000
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2 RealMemory=8000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP
CONF
}

start_node() { # NAME
    mkdir -p "$folder/spool-$1"
    setsid slurmd -D -N "$1" -f "$SLURM_CONF" </dev/null >"$folder/log/slurmd-$1.out" 2>&1 &
    echo $! >"$folder/run/$1.pid"
}

wait_for_nodes() { # NUMBER
    local _
    for _ in $(seq 150); do
        [ "$(timeout 2 sinfo -h -t idle -o %D 2>/dev/null)" != "$1" ] || return 0
        sleep 0.2
    done
    echo "The nodes do not answer:" >&2
    tail -n 5 "$folder"/log/* >&2
    return 1
}

start() { # PORT
    [ "$(id -u)" = 0 ] || { echo "The daemons need root." >&2; return 1; }
    mkdir -p "$folder"/{state,log,run,munge,socket}
    # munged wants folders above its socket that others cannot write to, and may be another user.
    chmod 755 "$folder" "$folder/socket"
    head -c 1024 /dev/urandom >"$folder/munge/key"
    chown -R munge: "$folder/munge" "$folder/socket"
    chmod 700 "$folder/munge"
    chmod 400 "$folder/munge/key"
    setsid runuser -u munge -- munged --foreground --key-file="$folder/munge/key" \
        --socket="$folder/socket/munge" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" \
        </dev/null >"$folder/log/munged.out" 2>&1 &
    local _
    for _ in $(seq 50); do
        [ ! -S "$folder/socket/munge" ] || break
        sleep 0.1
    done
    write_conf "$1"
    setsid slurmctld -D -c -f "$SLURM_CONF" </dev/null >"$folder/log/slurmctld.out" 2>&1 &
    echo $! >"$folder/run/slurmctld.pid"
    start_node n1
    start_node n2
    wait_for_nodes 2
}

descendants() { # PID ...: these and all that they started
    local pid
    for pid in "$@"; do
        echo "$pid"
        # shellcheck disable=SC2046  # one word a process
        descendants $(ps -o pid= --ppid "$pid" 2>/dev/null)
    done
}

steps() { # NAME: the processes of slurmstepd of a node; they leave their daemon
    # Each has a socket in its node's folder, NODE_JOB.STEP, and its job in its name.
    local socket job
    for socket in "$folder/spool-$1/$1"_*; do
        [ -S "$socket" ] || continue
        job=${socket##*/"$1"_}
        ps -eo pid=,args= | awk -v name="slurmstepd: [${job%.*}." 'index($0, name) { print $1 }'
    done
}

kill_node() { # NAME
    local all
    # The steps first: a daemon that is gone cannot tell the controller of a task's end.
    # shellcheck disable=SC2046  # one word a process
    mapfile -t all < <(cat "$folder/run/$1.pid"; descendants $(steps "$1"))
    kill -STOP "$(cat "$folder/run/$1.pid")"
    kill -KILL "${all[@]}" 2>/dev/null || true
}

stop() {
    local all pid _
    mapfile -t all < <(
        for name in n1 n2; do
            # shellcheck disable=SC2046
            descendants $(steps "$name")
        done
        cat "$folder"/run/{n1,n2,slurmctld}.pid "$folder/munge/pid" 2>/dev/null
    )
    [ "${#all[@]}" -gt 0 ] || return 0
    kill "${all[@]}" 2>/dev/null || true
    for _ in $(seq 20); do
        kill -0 "${all[@]}" 2>/dev/null || break
        sleep 0.25
    done
    for pid in "${all[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
}

case $action in
start) start "$3" ;;
node) start_node "$3" ;;
kill) kill_node "$3" ;;
stop) stop ;;
*)
    echo "start, node, kill or stop is wanted, not $action" >&2
    exit 64
    ;;
esac
