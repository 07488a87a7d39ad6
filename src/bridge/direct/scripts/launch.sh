# Launches one command and follows it. Runs as the process of an exec; what outlives that is detached.
#
# Arguments: root, task id, nonce, supervise.sh, command.sh, then those of supervise.sh from the third on (command.sh being that).
# Standard output: the log from its first byte on. Standard error: one control line an event. Standard input: see relay.
umask 077
root=$1 id=$2 nonce=$3 supervise=$4
dir=$root/$id
shift 4

refuse() { # says why nothing was launched; nothing will be
  case $1 in
  *"o space"* | *"ead-only"* | *"quota"*) echo "refused no_space $1" >&2 ;;
  *) echo "refused not_permitted $1" >&2 ;;
  esac
  exit
}

# Making the directory is the claim to the one launch: whoever finds it made launches nothing.
if ! mkdir "$dir" 2>/dev/null; then
  [ -d "$dir" ] && { echo claimed >&2; exit; }
  why=$(mkdir -p "$root" 2>&1 && mkdir "$dir" 2>&1) || {
    [ -d "$dir" ] && { echo claimed >&2; exit; }
    refuse "$why"
  }
fi
why=$({ printf '' >"$dir/output.log" && printf 'errand 1 %s ' "$nonce" >"$dir/exit.part"; } 2>&1) || {
  rm -rf "$dir"
  # The directory could be made: what lacks now is space, whatever the shell calls it.
  case $why in *"o space"*) ;; *) why="no space to write in ($why)" ;; esac
  echo "refused no_space $why" >&2
  exit
}
# Its first bytes are written by now, so that a disk that fills up later still has room for the result.
exec 3>>"$dir/exit.part" 4<"$dir/output.log" 6<&0

{
  relay <&6 2>/dev/null 3>&- 4<&- 5>&- 6<&- &
  echo "relay $!"
  $(command -v setsid) sh -c "$supervise" errand "$dir" "$id" "$@" </dev/null >/dev/null 2>&1 4<&- 6<&-
  echo over
} 5>&1 | follow
