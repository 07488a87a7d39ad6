# Follows a command that was launched before. Whoever attached earlier is not disturbed.
#
# Arguments: root, task id, first byte to emit. Standard streams: those of launch.sh.
dir=$1/$2
newline='
'

log=$dir/output.log
# Without a log there is nothing to emit; how the command ends is still told.
[ -f "$log" ] || log=/dev/null
exec 4<"$log" 6<&0
echo attached >&2
# Moves the shared position to the first byte that is wanted.
[ "$3" -eq 0 ] || head -c "$3" <&4 >/dev/null

recorded() { # sets $first and $second to the lines about the supervisor and the command
  first='' second=''
  [ -f "$dir/processes" ] || return 0
  # Bounded: a command may have put a file without end there.
  lines=$(head -c 256 "$dir/processes" 2>/dev/null)
  first=${lines%%"$newline"*}
  case $lines in
  *"$newline"*)
    second=${lines#*"$newline"}
    second=${second%%"$newline"*}
    ;;
  esac
}

lives() { # $1: a line, a number and a start time; true while that process lives
  case $1 in '' | *[!0-9\ ]*) return 1 ;; esac
  same_process "${1%% *}" "${1#* }"
}

supervised() { # true while the process that writes the exit file lives
  recorded
  lives "$first"
}

running() { # true while the command's first process lives
  recorded
  lives "$second"
}

{
  relay <&6 2>/dev/null 3>&- 4<&- 5>&- 6<&- &
  relay=$!
  echo "relay $relay"
  echo follow
  # An exit file that is there before the command has ended is none of the supervisor's.
  while { [ ! -e "$dir/exit" ] || running; } && supervised && kill -0 $relay 2>/dev/null; do sleep 1; done
  # A daemon may hold the log open for as long as it likes; what the command itself wrote is in it within moments.
  ! supervised || sleep 1
  echo over
} 5>&1 | follow
