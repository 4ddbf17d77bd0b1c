#!/usr/bin/env bash
# Start a Grid Engine of one node on this machine, to test with: queue all.q, parallel environment smp.
# Needs Debian 12 and root; installs what is missing, may be called again, returns when jobs are accepted and
# the queue is empty.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "$0: needs root" >&2; exit 1; }
if ! command -v qconf > /dev/null && [ "${VOX_INSTALL_ENGINES:-}" != 1 ]; then
  echo "$0: Grid Engine is not installed (VOX_INSTALL_ENGINES=1 installs it, on a machine to throw away)" >&2
  exit 1
fi
export SGE_ROOT=/var/lib/gridengine SGE_CELL=default
if ! command -v qconf > /dev/null || [ ! -x /etc/init.d/gridengine-master ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    gridengine-master gridengine-exec gridengine-client > /dev/null
fi
# The loopback host has two names, which Grid Engine must know to be one.
echo "localhost $(hostname)" > "$SGE_ROOT/default/common/host_aliases"
for _ in $(seq 10); do
  qconf -sh > /dev/null 2>&1 && break
  /etc/init.d/gridengine-master start > /dev/null 2>&1 || true
  sleep 2
done
pgrep -x sge_execd > /dev/null || /etc/init.d/gridengine-exec start > /dev/null 2>&1 || true

others=$(qconf -sel 2> /dev/null | grep -vxF -e localhost -e "$(hostname)" || true)
[ -z "$others" ] || { echo "$0: this is a real cluster (execution hosts: $others); tests must not change it" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Root may run jobs, and they do not wait for what root's profile does at login.
qconf -sconf | sed 's/^min_uid .*/min_uid 0/; s/^min_gid .*/min_gid 0/; s/^login_shells .*/login_shells none/' \
  > "$work/global"
qconf -Mconf "$work/global" > /dev/null
qconf -as localhost > /dev/null 2>&1 || true
if ! qconf -shgrp @allhosts > /dev/null 2>&1; then
  printf '%s\n' "group_name @allhosts" "hostlist localhost" > "$work/hosts"
  qconf -Ahgrp "$work/hosts" > /dev/null
fi
if ! qconf -sp smp > /dev/null 2>&1; then
  printf '%s\n' "pe_name smp" "slots 999" "user_lists NONE" "xuser_lists NONE" "start_proc_args NONE" \
    "stop_proc_args NONE" "allocation_rule \$pe_slots" "control_slaves FALSE" "job_is_first_task TRUE" \
    "urgency_slots min" "accounting_summary FALSE" "qsort_args NONE" > "$work/environment"
  qconf -Ap "$work/environment" > /dev/null
fi
if ! qconf -sq all.q > /dev/null 2>&1; then
  qconf -sq | sed -e 's/^qname .*/qname all.q/' -e 's/^hostlist .*/hostlist @allhosts/' -e 's/^slots .*/slots 2/' \
    -e 's#^shell .*#shell /bin/bash#' -e 's/^pe_list .*/pe_list smp/' \
    -e 's/^load_thresholds .*/load_thresholds NONE/' > "$work/queue"  # a busy machine takes jobs as well
  qconf -Aq "$work/queue" > /dev/null
fi
if [ "$(qconf -ssconf | awk '$1 == "schedule_interval" { print $2 }')" != 0:0:1 ]; then  # not 15 s: tests wait for it
  qconf -ssconf | sed 's/^schedule_interval .*/schedule_interval 0:0:1/; s/^flush_submit_sec .*/flush_submit_sec 1/; s/^flush_finish_sec .*/flush_finish_sec 1/' > "$work/scheduler"
  qconf -Msconf "$work/scheduler" > /dev/null
fi
for _ in $(seq 60); do
  if qstat -f 2> /dev/null | grep -q 'all.q@.*lx-amd64 *$'; then
    [ -z "$(qstat)" ] || qdel -f -u root > /dev/null  # what an interrupted test left in the queue
    exit 0
  fi
  sleep 1
done
qstat -f >&2
echo "$0: no queue accepts jobs after a minute" >&2
exit 1
