#!/bin/bash
# Runs a command on GPU nodes under SLURM, and queues itself again after a preemption, a time limit
# or a node failure; the command then continues from its last checkpoint.
#
#   sbatch --nodes=2 launch/slurm.sh \
#       python launch/tpu_train.py --config=configs/cora.py:paper --workdir=/shared/runs/cora
#
# Submit it from the root of the checkout, with the packages installed in .venv (pip install -e
# ".[cuda]") or in the active environment; the workdir must be on a file system that all nodes
# mount. The lines below are the defaults; sbatch's own flags win. To end a job for good:
# scancel --full --signal=KILL JOB (a plain scancel lets it save, and it would come back).
#
#SBATCH --job-name=clmrc_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=clmrc_jax-%j.log
#
# ntasks-per-node equals gpus-per-node: under SLURM, JAX gives each process the one GPU of its local
# number, so every task must see all GPUs of its node (no --gpus-per-task, no --gpu-bind).
# signal: five minutes before the time limit the program is told to save; it then exits with 75.

set -u
MAX_RESTARTS=${MAX_RESTARTS:-100}
SAVED=75 # clmrc_jax.exit_status.PREEMPTED

if [ $# -eq 0 ]; then
    echo "slurm.sh: give the command, e.g. python launch/tpu_train.py --config=... --workdir=..." >&2
    exit 2
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "slurm.sh: submit it: sbatch launch/slurm.sh $*" >&2
    exit 2
fi
if [ -f .venv/bin/activate ]; then
    . .venv/bin/activate
fi

trap : TERM # the signal is for the program; this shell waits for its status
echo "--- $(date -u +%FT%TZ) job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0}: $*"
# Processes may take a while to save after the first of them has ended: do not kill them at once.
# srun of Slurm 22.05 and later does not take the cores per task from sbatch.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --kill-on-bad-exit=0 --wait=300 "$@"
status=$?

if [ "$status" -eq "$SAVED" ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAX_RESTARTS" ]; then
        echo "slurm.sh: saved, but restarted $MAX_RESTARTS times already; submit again to go on" >&2
        exit "$SAVED"
    fi
    echo "--- saved; queueing job $SLURM_JOB_ID again"
    scontrol requeue "$SLURM_JOB_ID" || exit "$SAVED"
    exit 0
fi
exit "$status"
