# Reports what is known of tasks in this sandbox.
#
# Arguments: root, fence or look, task ids. fence also fences every task that was not launched: such a task can never launch afterwards.
# Standard output: `uptime TICKS`, the clock that start times are measured by, then for each task
#   task ID DIRECTORY STARTED PID TICKS ALIVE SUPERVISED SIZE INCOMPLETE GAP_START GAP_END OOM_KILLS EXIT_LENGTH
# and a line with that many bytes of the exit file. GAP_START, GAP_END and EXIT_LENGTH are - where there is none.
LC_ALL=C
newline='
'
umask 077
root=$1 fence=$2
shift 2
# In hundredths of a second, the unit of start times.
read -r uptime rest </proc/uptime
echo "uptime ${uptime%.*}${uptime#*.}"

numbers() { # $1 $2: two words, stored in $first and $second; 0 where a word is not a number
  first=${1:-0} second=${2:-0}
  case $first$second in *[!0-9]*) first=0 second=0 ;; esac
}

recorded() { # sets $supervisor and $command to what is recorded of these processes
  supervisor='' command=''
  [ -f "$dir/processes" ] || return 0
  # Bounded: a command may have replaced the file with one without end.
  lines=$(head -c 256 "$dir/processes" 2>/dev/null)
  supervisor=${lines%%"$newline"*}
  case $lines in
  *"$newline"*)
    command=${lines#*"$newline"}
    command=${command%%"$newline"*}
    ;;
  esac
}

for id; do
  dir=$root/$id
  directory=0 started=0 pid=0 since=0 alive=0 supervised=0 incomplete=0 kills=0 length=- content=
  [ ! -d "$dir" ] || directory=1
  recorded
  if [ -z "$supervisor" ] && [ "$fence" = fence ]; then
    mkdir -p "$dir" 2>/dev/null
    # Without the mark the launch may still happen, so the task must not be reported as never launched.
    true 2>/dev/null >"$dir/fenced" || started=1
    recorded
  fi
  [ -z "$supervisor" ] || started=1
  # Read before the exit file: a process that was alive here may write the exit file meanwhile, and the result is then seen.
  numbers $command
  pid=$first since=$second
  [ "$since" = 0 ] || ! same_process "$pid" "$since" || alive=1
  numbers $supervisor
  [ "$second" = 0 ] || ! same_process "$first" "$second" || supervised=1
  # A daemon may keep the supervisor waiting for the log. Once the result exists and the command has ended, the supervisor has nothing more
  # to report.
  [ ! -f "$dir/exit" ] || [ "$alive" = 1 ] || supervised=0
  if [ -f "$dir/exit" ]; then
    content=$(head -c 1024 "$dir/exit" 2>/dev/null; echo .)
    content=${content%.}
    length=${#content}
  fi
  measure "$dir"
  { [ ! -f "$dir/oom" ] || kills=$(head -c 20 "$dir/oom"); } 2>/dev/null
  numbers "$kills"
  [ ! -e "$dir/incomplete" ] || incomplete=1
  echo "task $id $directory $started $pid $since $alive $supervised $size $incomplete $lacks $resumes $first $length"
  printf '%s\n' "$content"
done
