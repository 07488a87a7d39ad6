# Part of supervise.sh: counts the processes that the kernel killed because the memory of the sandbox ran out.

count_kills() { # sets $kills to how many processes of the sandbox were killed so far because memory ran out; empty if that is not visible
  kills=
  for counts in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$counts" ] || continue
    while read -r key value; do [ "$key" != oom_kill ] || kills=$value; done <"$counts"
    return
  done
}

note_kills() { # $1: the count before the command. Records how many processes were killed since.
  count_kills
  [ -n "$1" ] && [ -n "$kills" ] && [ "$kills" -gt "$1" ] || return 0
  echo "$((kills - $1))" 2>/dev/null >"$dir/oom"
  echo "oom $((kills - $1))" >&5
}
