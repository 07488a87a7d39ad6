# Part of supervise.sh: what the kernel killed because the sandbox's memory had run out.

count_kills() { # sets $kills to how many processes of the sandbox were killed for that so far; empty where it cannot be seen
  kills=
  for counts in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$counts" ] || continue
    while read -r key value; do [ "$key" != oom_kill ] || kills=$value; done <"$counts"
    return
  done
}

note_kills() { # $1: the count before the command. Says how many there were since.
  count_kills
  [ -n "$1" ] && [ -n "$kills" ] && [ "$kills" -gt "$1" ] || return 0
  echo "$((kills - $1))" 2>/dev/null >"$dir/oom"
  echo "oom $((kills - $1))" >&5
}
