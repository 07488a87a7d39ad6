# Signals processes of a task and reports how many there are.
#
# Arguments: root, task id, pid and start time of the first process of the task, signal number, target. Signal 0 only counts. Target: all;
# group: those in the process group of the first process; leader: the first process.
# A process belongs to the task when it is in its session, has the marker of the task in its environment, or descends from a process that
# belongs to the task. So children that left the process group, made a session or got another parent are found as well.
id=$2 leader=$3 since=$4 signal=$5 target=${6:-all}

marked() { # true when process $1 has the marker of the task in its environment
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in *"ERRAND_TASK_ID=$id"*) return 0 ;; esac
  done 2>/dev/null </proc/"$1"/environ
  return 1
}

members() { # sets $members
  members=' ' pairs=
  # The kernel does not reuse a session id while the session has members; after that, the id may belong to another session.
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

# The kernel does not reuse a process group's id while the group has members.
chosen() { # sets $chosen to the members that the target names
  chosen=
  for pid in $members; do
    process "$pid" || continue
    case $target in
    leader) [ "$pid" = "$leader" ] && [ "$ticks" = "$since" ] || continue ;;
    group) [ "$group" = "$leader" ] || continue ;;
    esac
    chosen="$chosen $pid"
  done
}

if [ "$target" != all ]; then
  members
  chosen
  set -- $chosen
  [ $# -eq 0 ] || kill -"$signal" "$@" 2>/dev/null
  echo "members $#"
  exit 0
fi

pass=0
while :; do
  members
  set -- $members
  [ $# -gt 0 ] && [ "$signal" != 0 ] || break
  kill -"$signal" "$@" 2>/dev/null
  # A stopped process could not handle the signal and would be killed without a chance to clean up.
  [ "$signal" != 15 ] || kill -CONT "$@" 2>/dev/null
  # A killed process is gone at once, but may have forked another one just before.
  [ "$signal" = 9 ] && [ $pass -lt 20 ] || break
  pass=$((pass + 1))
done
echo "members $#"
