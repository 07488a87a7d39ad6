# Runs one command, tees its output into the log and writes its exit file. Detached: it outlives the exec that started it.
#
# Arguments: task directory, the most bytes of output that are kept (0: all), mode, workdir, shell, text, numbers of secret and of other
# environment entries, the entries, and in mode argv the program and its arguments; all but the first packed. Fd 3: the exit file. Fd 5: events.
umask 077
unset ERRAND_SUPERVISE
dir=$1
newline='
'

shrug() { # keeps signals meant for the command from ending this shell; the command inherits no handler, but would inherit an ignored signal
  trap : HUP INT QUIT TERM PIPE USR1 USR2 ALRM
}

finish() { # $1: the result. The event carries it too, in case the exit file cannot be written.
  printf '%s\n' "$1" >&3
  mv "$dir/exit.part" "$dir/exit" 2>/dev/null
  echo "ended $1" >&5
}

find_program() { # $1: name, $2: search path. Fails with $kind set.
  case $1 in
  */*)
    kind=not_found
    [ -e "$1" ] || return 1
    kind=not_executable
    [ -f "$1" ] && [ -x "$1" ]
    return
    ;;
  esac
  kind=not_found
  rest=$2:
  while [ -n "$rest" ]; do
    entry=${rest%%:*}
    rest=${rest#*:}
    [ -f "${entry:-.}/$1" ] || continue
    kind=not_executable
    [ ! -x "${entry:-.}/$1" ] || return 0
  done
  return 1
}

about() { # sets $about to $1 as the end of a message, if it fits into one line of the exit file
  about=
  case $1 in *"$newline"*) ;; *) [ ${#1} -gt 200 ] || about=": $1" ;; esac
}

enter() { # $1: working directory
  [ -z "$1" ] || cd -- "$1" 2>/dev/null || {
    about "$1"
    if [ -d "$1" ]; then
      finish "failed not_permitted 13 the working directory cannot be entered$about"
    elif [ -e "$1" ]; then
      finish "failed no_such_directory 20 the working directory is no directory$about"
    else
      finish "failed no_such_directory 2 the working directory is not there$about"
    fi
    return 1
  }
}

search_path() { # $1: number of entries; then the entries and the program. Sets $path and $program.
  path=$PATH
  count=$1
  shift
  for program; do
    [ "$count" -gt 0 ] || return 0
    case $program in PATH=*) path=${program#PATH=} ;; esac
    count=$((count - 1))
  done
}

run() { # Runs the program and everything before it. Returns with $result set, or fails when there is none.
  # A shell without job control makes its background jobs ignore SIGINT and SIGQUIT. Either that is undone, or a timer waits instead.
  if env --default-signal=INT,QUIT true 2>/dev/null; then
    reset=--default-signal=INT,QUIT
  elif find_program time "$PATH"; then
    pack "$dir" '' "$secrets" "$@"
    exec 9>&1
    said=$({ shrug; command time -f '' $(command -v setsid) sh -c 'eval "$ERRAND_COMMAND"'; } 2>&1 </dev/null 3>&-)
    code=$?
    exec 9>&-
    case $code$said in
    *"terminated by signal "*)
      said=${said#*terminated by signal }
      result="signaled ${said%%[!0-9]*}"
      ;;
    *"non-zero status "*)
      said=${said#*non-zero status }
      result="exited ${said%%[!0-9]*}"
      ;;
    0) result="exited 0" ;;
    *)
      # A signal ended the timer, so its exit code means nothing. The command runs on, and its result stays unknown.
      { lines=$(head -c 256 "$dir/processes"); } 2>/dev/null
      { read -r pid since && read -r pid since; } <<END
$lines
END
      while same_process "$pid" "$since"; do sleep 1; done
      return 1
      ;;
    esac
    return 0
  else
    reset=
  fi
  pack "$dir" "$reset" "$secrets" "$@"
  exec 9>&1
  [ -z "$BASH_VERSION" ] || { set -o posix; trap : CHLD; }
  $(command -v setsid) sh -c 'eval "$ERRAND_COMMAND"' </dev/null 3>&- &
  child=$!
  exec 9>&-
  wait "$child"
  code=$?
  # A signal to this shell ends the wait too.
  while [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
  done
  result="exited $code"
  [ "$code" -gt 128 ] || return 0
  # The exit code is 137 both for exit 137 and for a kill; the job table of the shell tells them apart.
  state=
  jobs -l 2>/dev/null 1<>"$dir/jobs" && read -r state <"$dir/jobs"
  [ -z "$BASH_VERSION" ] || { wait "$child"; code=$?; result="exited $code"; }
  case $state in
  '' | *Done* | *Exit*) ;;
  *) result="signaled $((code - 128))" ;;
  esac
}

supervise() {
  shrug
  mode=$3 workdir=$4 shell=$5 text=$6 secrets=$7 count=$8
  shift 8
  enter "$workdir" || return
  search_path "$((secrets + count))" "$@"
  case $mode in
  argv) ;;
  *)
    if [ -z "$shell" ]; then
      shell=sh
      ! find_program bash "$path" || shell=bash
    fi
    program=$shell
    case $mode in
    text) set -- "$@" "$shell" -c "$text" ;;
    file) set -- "$@" "$shell" "$text" ;;
    esac
    ;;
  esac
  find_program "$program" "$path" || {
    about "$program"
    case $kind in
    not_found) finish "failed not_found 2 the program is not there$about" ;;
    *) finish "failed not_executable 13 the program cannot be executed$about" ;;
    esac
    return
  }
  # From here on the command counts as launched.
  echo "$$ $ticks" 2>/dev/null >"$dir/processes" || {
    finish "failed no_space 28 the task directory cannot be written"
    return
  }
  # Checked after the line is written: a fence reads the line after it has made its mark. So at least one of the two sees the other.
  [ ! -e "$dir/fenced" ] || {
    finish "failed launch_interrupted 0 the launch was given up before the command ran"
    return
  }
  count_kills
  before=$kills
  run "$@" || return
  # A successful command was not killed for lack of memory.
  [ "$result" = "exited 0" ] || note_kills "$before"
  finish "$result"
}

shrug
process $$
supervise "$@" | {
  # The command is not started from this shell, so signals may be ignored here; the supervisor must handle them instead.
  trap '' HUP INT QUIT TERM PIPE USR1 USR2 ALRM XFSZ
  keep "$2"
}
