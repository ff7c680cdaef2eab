#!/bin/bash
# dtbench on several Slurm nodes: sbatch slurm.sh --suite d4rl --preset paper
# Arguments are those of `dtbench run`. It expects .venv, results and suites in the folder that it is submitted from,
# which all nodes must share. Before its time is up trials write their checkpoints, and it goes back into the queue.
#SBATCH --job-name=dtbench
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
##SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
. .venv/bin/activate

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
export DTBENCH_DATA="${DTBENCH_DATA:-$HOME/dtbench-datasets}" # or a disk of the node: each may have its own
ray get-auth-token --generate > /dev/null                     # ~/.ray/auth_token, which all nodes must share

# The head is the node that runs this script; the port is the job's own, since jobs may share a node.
head=$(hostname)
address=$(hostname --ip-address | cut -d ' ' -f 1):$((20000 + SLURM_JOB_ID % 20000))
on_node=(srun --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK")

"${on_node[@]}" --nodes=1 --nodelist="$head" \
  ray start --head --node-ip-address="${address%:*}" --port="${address#*:}" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
joined='import sys, ray; ray.init(sys.argv[1], log_to_driver=False); sys.exit(len(ray.nodes()) < int(sys.argv[2]))'
until python -c "$joined" "$address" 1 2> /dev/null; do sleep 2; done

for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
  [ "$node" = "$head" ] && continue
  "${on_node[@]}" --nodes=1 --nodelist="$node" \
    ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
done
until python -c "$joined" "$address" "$SLURM_JOB_NUM_NODES" 2> /dev/null; do sleep 2; done

stopped=
dtbench run "$@" --address "$address" &
driver=$!
trap 'stopped=yes; kill -TERM "$driver"' TERM

code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2> /dev/null; do # a signal ends `wait` before dtbench has ended
  code=0
  wait "$driver" || code=$?
done
if [ -n "$stopped" ] && [ "$code" = 130 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
