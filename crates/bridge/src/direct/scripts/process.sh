# Shared by supervise.sh, attach.sh, probe.sh and signal.sh: identifies processes so that a later process with the same pid is never taken
# for them.

stat_fields() { # $1 and following: the fields of /proc/PID/stat after the name of the command
  state=$1 parent=$2 group=$3 session=$4
  shift 19
  ticks=$1
}

process() { # sets $state, $parent, $group, $session and $ticks for process $1; fails when it does not exist
  { IFS= read -r stat </proc/"$1"/stat; } 2>/dev/null || return 1
  stat_fields ${stat##*) }
}

same_process() { # true while process $1 with start time $2 lives; false for a zombie
  process "$1" && [ "$ticks" = "$2" ] && case $state in Z | X) false ;; esac
}
