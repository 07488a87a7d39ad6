# Says what is known of tasks in this sandbox.
#
# Arguments: root, `fence` or `look`, task ids. Fenced are tasks that were not launched: afterwards they never will be.
# Standard output: `boot SECONDS`, then for each task
#   task ID DIRECTORY STARTED PID TICKS ALIVE SUPERVISED SIZE INCOMPLETE EXIT_LENGTH
# and a line with that many bytes of the exit file. EXIT_LENGTH is - where there is none.
LC_ALL=C
umask 077
root=$1 fence=$2
shift 2
echo "boot $(sed -n 's/^btime //p' /proc/stat)"

for id; do
  dir=$root/$id
  directory=0 started=0 pid=0 since=0 alive=0 supervised=0 size=0 incomplete=0 length=- content=
  [ ! -d "$dir" ] || directory=1
  # Looked at before the exit file: a process that was alive may write it in between, and it is then seen.
  { read -r pid since <"$dir/pid"; } 2>/dev/null
  [ "${since:-0}" = 0 ] || ! same_process "$pid" "$since" || alive=1
  keeper='' made=''
  { read -r keeper made <"$dir/supervisor"; } 2>/dev/null
  [ -z "$made" ] || ! same_process "$keeper" "$made" || supervised=1
  [ ! -e "$dir/started" ] || started=1
  if [ $started = 0 ] && [ "$fence" = fence ]; then
    mkdir -p "$dir" 2>/dev/null
    set -C
    true 2>/dev/null >"$dir/started" || started=1
    set +C
  fi
  if [ -e "$dir/exit" ]; then
    content=$(head -c 1024 "$dir/exit" 2>/dev/null; echo .)
    content=${content%.}
    length=${#content}
  fi
  [ ! -e "$dir/output.log" ] || size=$(stat -c %s "$dir/output.log")
  [ ! -e "$dir/incomplete" ] || incomplete=1
  echo "task $id $directory $started ${pid:-0} ${since:-0} $alive $supervised $size $incomplete $length"
  printf '%s\n' "$content"
done
