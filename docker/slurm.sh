#!/bin/bash
#SBATCH --job-name=egapipe
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --requeue
#
# A Ray cluster over the nodes of a Slurm job, and one command of egapipe on it:
#
#   sbatch docker/slurm.sh extract -c experiment.yaml
#   sbatch --nodes=4 docker/slurm.sh distill -c experiment.yaml --set distill.workers=16
#
# egapipe and Ray must be on PATH of all nodes; store.url and runs lie where all of them see it. A
# job that is requeued goes on where it was: every command of egapipe does.
set -euo pipefail

if [ $# = 0 ]; then
    echo "usage: sbatch slurm.sh COMMAND [ARGUMENTS], a command of egapipe" >&2
    exit 2
fi

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN

# The address by which the others know a node; it may have more of them.
ip_of() {
    getent ahostsv4 "$1" | awk '{ print $1; exit }'
}

step=(srun --overlap --nodes=1 --ntasks=1)

start_ray() {
    "${step[@]}" --nodelist="$1" \
        ray start --block --disable-usage-stats --node-ip-address="$(ip_of "$1")" \
        --num-cpus="$SLURM_CPUS_PER_TASK" "${@:2}" &
}

# Steps that go on in the background would hold the job.
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT

export RAY_ADDRESS
RAY_ADDRESS="$(ip_of "${nodes[0]}"):$port"
# Below a folder of the job's own: others may have a Ray on the node.
start_ray "${nodes[0]}" --head --port="$port" --include-dashboard=false \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID"
head=$!
until ray health-check --address "$RAY_ADDRESS" 2>/dev/null; do
    kill -0 "$head" || { echo "Ray's head did not start on ${nodes[0]}" >&2; exit 1; }
    sleep 1
done
for node in "${nodes[@]:1}"; do
    start_ray "$node" --address="$RAY_ADDRESS"
done

"${step[@]}" --nodelist="${nodes[0]}" egapipe "$@"
