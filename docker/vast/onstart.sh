#!/bin/bash
# Runs the worker on a rented machine, and again after every interruption. README.md beside this file says how.
#
#   TRAIN_COMMAND   what to run, words separated by spaces: train --task convlstm --sync-to s3://bucket/runs
#   TRAIN_HOME      where the code is, if not /app or beside this file
#   TRAIN_OUTPUT    where this script keeps its log and its lock, if not model_output there
#
# In ssh and jupyter mode (on-start script) it goes on in the background; with --foreground (entrypoint mode, as the
# container's command) it stays, and ends with the worker's exit code.
set -uo pipefail

# A session may not see the variables that the instance was made with; its first process does.
if [[ -r /proc/1/environ ]]; then
  while IFS= read -r -d '' pair; do
    name=${pair%%=*}
    if [[ $name =~ ^[A-Z_][A-Z0-9_]*$ && -z ${!name+set} ]]; then export "${pair?}"; fi
  done </proc/1/environ
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
self=$here/$(basename "${BASH_SOURCE[0]}")
for home in "${TRAIN_HOME:-}" /app "$here/../.." /workspace/app; do
  if [[ -n $home && -f $home/training/train_worker.py ]]; then break; fi
  home=
done
if [[ -z $home ]]; then
  echo "error: no training/train_worker.py in /app; set TRAIN_HOME to the folder that has it" >&2
  exit 78
fi
cd "$home" || exit 78
for python in /opt/venv/bin/python .venv/bin/python python3; do
  if command -v "$python" >/dev/null; then break; fi
done
state=${TRAIN_OUTPUT:-model_output}
export TRAIN_WORKER_UNMOUNTED_OK=${TRAIN_WORKER_UNMOUNTED_OK:-1} # nothing is mounted there: what lasts is in the store
mkdir -p "$state" || exit 74

if [[ ${1:-} != --foreground ]]; then
  setsid nohup "$BASH" "$self" --foreground >>"$state/onstart.log" 2>&1 </dev/null &
  echo "the worker runs in the background; follow it with: tail -f $home/$state/onstart.log"
  exit 0
fi

# Held by this script and by the worker, so that a second start of either finds it taken.
exec 9>"$state/.onstart.lock"
if ! flock --nonblock 9; then
  echo "already running"
  exit 0
fi

read -ra words <<<"${TRAIN_COMMAND:-train}"
worker='' asked=''
trap 'asked=1; [[ -n $worker ]] && kill -TERM "$worker" 2>/dev/null' TERM INT
while :; do
  echo "$(date -u +%FT%TZ) starting: ${words[0]}"
  "$python" training/train_worker.py "${words[@]}" &
  worker=$!
  wait "$worker"
  code=$?
  while kill -0 "$worker" 2>/dev/null; do # the wait was cut short by a signal; the worker is still saving
    wait "$worker"
    code=$?
  done
  worker=''
  echo "$(date -u +%FT%TZ) ended with exit code $code"
  if [[ -n $asked ]]; then exit "$code"; fi
  case $code in
    75 | 130 | 143) pause=${TRAIN_PAUSE:-10} ;; # interrupted: the same command continues
    69) pause=${TRAIN_PAUSE_69:-300} ;;         # a source or a store is out of reach: later
    *) exit "$code" ;;                          # finished, out of budget, or nothing that trying again mends
  esac
  sleep "$pause" &
  wait $!
  if [[ -n $asked ]]; then exit "$code"; fi
done
