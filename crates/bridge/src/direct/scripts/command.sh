# Becomes the command, as the leader of its own session.
#
# Arguments, packed: task directory, an option for env or nothing, number of secret environment entries, these, the other environment entries,
# program and its arguments.
# Fd 5: events. Fd 9: where the command's output goes.
exec >&9 2>&9 9>&-
unset ERRAND_COMMAND
dir=$1 reset=$2 secrets=$3
shift 3

announce() { # $1 and following: the fields of /proc/PID/stat after the name of the command
  shift 19
  echo "$$ $1" 2>/dev/null >>"$dir/processes"
  echo "started $$ $1" >&5
}

trap : PIPE
IFS= read -r stat </proc/$$/stat
announce ${stat##*) } 2>/dev/null
trap - PIPE
exec 5>&-
umask "$ERRAND_UMASK"
unset ERRAND_UMASK
# A secret never stands on a command line, as the other entries do for a moment. No secret has a name that the shell or the lines below use.
ERRAND_DIR=$dir ERRAND_RESET=$reset ERRAND_SECRETS=$secrets
while [ "$ERRAND_SECRETS" -gt 0 ]; do
  export "${1?}"
  ERRAND_SECRETS=$((ERRAND_SECRETS - 1))
  shift
done
exec env $ERRAND_RESET "ERRAND_TASK_ID=${ERRAND_DIR##*/}" "$@"
