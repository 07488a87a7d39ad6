# Shared by supervise.sh, attach.sh, probe.sh and signal.sh: processes that cannot be taken for later ones with the same number.

stat_fields() { # $1 on: /proc/PID/stat after the command's name
  state=$1 parent=$2 session=$4
  shift 19
  ticks=$1
}

process() { # sets $state, $parent, $session and $ticks of process $1; fails when there is none
  { IFS= read -r stat </proc/"$1"/stat; } 2>/dev/null || return 1
  stat_fields ${stat##*) }
}

same_process() { # true while process $1 that was made at $2 lives; a zombie does not
  process "$1" && [ "$ticks" = "$2" ] && case $state in Z | X) false ;; esac
}
