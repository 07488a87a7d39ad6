# Signals every process of a task and says how many there are.
#
# Arguments: root, task id, pid of its first process, that one's start time, signal number; 0 only counts.
# A process belongs to the task when it is in its session, carries its mark in the environment, or descends from one that does:
# so children that left the process group, made a session or were given another parent are found as well.
id=$2 leader=$3 since=$4 signal=$5

marked() { # true when process $1 carries the task's mark
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in *"ERRAND_TASK_ID=$id"*) return 0 ;; esac
  done 2>/dev/null </proc/"$1"/environ
  return 1
}

members() { # sets $members
  members=' ' pairs=
  # The number of a session is not given out again while it has members; after that it may belong to a stranger.
  ours=$leader
  process "$leader" && [ "$ticks" != "$since" ] && ours=none
  for entry in /proc/[0-9]*; do
    pid=${entry#/proc/}
    process "$pid" || continue
    case $state in Z | X) continue ;; esac
    pairs="$pairs $pid:$parent"
    if [ "$session" = "$ours" ] || marked "$pid"; then members="$members$pid "; fi
  done
  more=1
  while [ -n "$more" ]; do
    more=
    for pair in $pairs; do
      pid=${pair%:*}
      case $members in *" $pid "*) continue ;; esac
      case $members in *" ${pair#*:} "*)
        members="$members$pid "
        more=1
        ;;
      esac
    done
  done
}

pass=0
while :; do
  members
  set -- $members
  [ $# -gt 0 ] && [ "$signal" != 0 ] || break
  kill -"$signal" "$@" 2>/dev/null
  # A process that was stopped could not handle it, and would be killed unasked.
  [ "$signal" != 15 ] || kill -CONT "$@" 2>/dev/null
  # What is killed is gone at once, but may have made another process just before.
  [ "$signal" = 9 ] && [ $pass -lt 20 ] || break
  pass=$((pass + 1))
done
echo "members $#"
