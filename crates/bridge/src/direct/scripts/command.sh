# Becomes the command, as the leader of its own session.
#
# Arguments, packed: task directory, an option for env or nothing, environment entries, program and its arguments.
# Fd 5: events. Fd 9: where the command's output goes.
exec >&9 2>&9 9>&-
unset ERRAND_COMMAND
dir=$1 reset=$2
shift 2

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
exec env $reset "ERRAND_TASK_ID=${dir##*/}" "$@"
