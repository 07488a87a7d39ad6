# Follows a command that was launched before. Earlier attachments go on undisturbed.
#
# Arguments: root, task id, first byte to emit. Standard streams: as in launch.sh.
dir=$1/$2
newline='
'

log=$dir/output.log
# Without a log there is nothing to emit, but the end of the command is still reported.
[ -f "$log" ] || log=/dev/null
exec 4<"$log" 6<&0
echo attached >&2
# Moves the shared file position to the first byte to emit.
[ "$3" -eq 0 ] || head -c "$3" <&4 >/dev/null

recorded() { # sets $first and $second to the lines about the supervisor and the command
  first='' second=''
  [ -f "$dir/processes" ] || return 0
  # Bounded: a command may have replaced the file with one without end.
  lines=$(head -c 256 "$dir/processes" 2>/dev/null)
  first=${lines%%"$newline"*}
  case $lines in
  *"$newline"*)
    second=${lines#*"$newline"}
    second=${second%%"$newline"*}
    ;;
  esac
}

lives() { # $1: a line with a pid and a start time; true while that process lives
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
  # The supervisor never writes an exit file before the command has ended: such a file is forged.
  while { [ ! -e "$dir/exit" ] || running; } && supervised && kill -0 $relay 2>/dev/null; do sleep 1; done
  # A daemon may hold the log open for ever; what the command itself wrote reaches the log within moments.
  ! supervised || sleep 1
  echo over
} 5>&1 | follow
