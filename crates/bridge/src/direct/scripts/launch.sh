# Launches one command and follows it. Runs as the process of an exec; processes that outlive the exec are detached.
#
# Arguments: root, task id, nonce, supervise.sh, command.sh, how many of the arguments of supervise.sh come on standard input, then the others.
# Standard output: the log from its first byte on. Standard error: one control line per event. Standard input: the arguments that nobody may
# see on a command line, each as the number of its line breaks and then its lines; then see relay.
ERRAND_UMASK=$(umask)
export ERRAND_UMASK
umask 077
root=$1 id=$2 nonce=$3
dir=$root/$id
export ERRAND_SUPERVISE="$4" ERRAND_COMMAND="$5"
unread=$6
shift 6
newline='
'
while [ "$unread" -gt 0 ]; do
  IFS= read -r breaks && IFS= read -r text || exit
  while [ "$breaks" -gt 0 ]; do
    IFS= read -r line || exit
    text=$text$newline$line
    breaks=$((breaks - 1))
  done
  set -- "$@" "$text"
  unread=$((unread - 1))
done

refuse() { # reports why nothing was launched and never will be
  case $1 in
  *"ead-only"*) echo "refused no_space 30 $1" >&2 ;;
  *"o space"* | *"quota"*) echo "refused no_space 28 $1" >&2 ;;
  *) echo "refused not_permitted 13 $1" >&2 ;;
  esac
  exit
}

# Creating the directory claims the one launch of the task: a script that finds the directory launches nothing.
if ! mkdir "$dir" 2>/dev/null; then
  [ -d "$dir" ] && { echo claimed >&2; exit; }
  why=$(mkdir -p "$root" 2>&1 && mkdir "$dir" 2>&1) || {
    [ -d "$dir" ] && { echo claimed >&2; exit; }
    refuse "$why"
  }
fi
# The exit file gets its disk space now, so that the result can be written even if the disk is full later.
why=$({ printf '' >"$dir/output.log" && printf 'errand 1 %s ' "$nonce" >"$dir/exit.part" && printf '%512s\n' '' >"$dir/jobs"; } 2>&1) || {
  rm -rf "$dir"
  # The directory could be created, so what is missing now is space, whatever error the shell reports.
  case $why in *"o space"*) ;; *) why="no space to write in ($why)" ;; esac
  echo "refused no_space 28 $why" >&2
  exit
}
pack "$@"
log=$dir/output.log
exec 3>>"$dir/exit.part" 4<"$log" 6<&0

{
  relay <&6 2>/dev/null 3>&- 4<&- 5>&- 6<&- &
  echo "relay $!"
  $(command -v setsid) sh -c 'eval "$ERRAND_SUPERVISE"' errand "$dir" </dev/null >/dev/null 2>&1 4<&- 6<&-
  echo over
} 5>&1 | follow
