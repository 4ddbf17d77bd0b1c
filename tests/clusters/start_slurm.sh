#!/usr/bin/env bash
# Start a Slurm on this machine, to test with: partition main of two nodes, 2 CPUs each, both of them this machine.
# Needs Debian 12 and root; installs what is missing, may be called again, returns when jobs are accepted and
# the queue is empty.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "$0: needs root" >&2; exit 1; }
if ! command -v slurmctld > /dev/null && [ "${VOX_INSTALL_ENGINES:-}" != 1 ]; then
  echo "$0: Slurm is not installed (VOX_INSTALL_ENGINES=1 installs it, on a machine to throw away)" >&2
  exit 1
fi
if [ -s /etc/slurm/slurm.conf ] && ! grep -q '^ClusterName=one$' /etc/slurm/slurm.conf; then
  echo "$0: /etc/slurm/slurm.conf is of a real cluster; tests must not change it" >&2
  exit 1
fi
if ! command -v sbatch > /dev/null || ! command -v slurmctld > /dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    slurmctld slurmd slurm-client munge > /dev/null
fi
run=/var/tmp/attvec-slurm
mkdir -p /run/munge "$run"/{state,spool.node1,spool.node2,log} /etc/slurm
chown munge /run/munge
if [ ! -s /etc/munge/munge.key ]; then
  head -c 1024 /dev/urandom > /etc/munge/munge.key
  chown munge /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
fi
pgrep -x munged > /dev/null || su -s /bin/bash munge -c /usr/sbin/munged
# nproc alone prints OMP_NUM_THREADS, which the tests set to 1.
cat > /etc/slurm/slurm.conf << END
ClusterName=one
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation=$run/state
SlurmdSpoolDir=$run/spool.%n
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.%n.pid
SlurmctldLogFile=$run/log/slurmctld.log
SlurmdLogFile=$run/log/slurmd.%n.log
MpiDefault=none
NodeName=node[1-2] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=$(nproc --all) RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
pgrep -x slurmctld > /dev/null || slurmctld
for node in node1 node2; do
  pgrep -x slurmd -a | grep -q "$node" || slurmd -N "$node"
done
for _ in $(seq 60); do
  if [ "$(sinfo -h -N -t idle,mixed,allocated 2> /dev/null | grep -c main)" = 2 ]; then
    scancel --user=root  # what an interrupted test left in the queue
    exit 0
  fi
  sleep 1
done
sinfo >&2
echo "$0: the two nodes accept no jobs after a minute" >&2
exit 1
