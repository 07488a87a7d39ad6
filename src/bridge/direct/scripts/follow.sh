# Shared by launch.sh and attach.sh: from events to control lines and output.

relay() { # the server's words become events; its going becomes one too
  while read -r word; do echo "$word"; done
  echo gone
}

emit() { # what the log holds and was not emitted; afterwards the tail does it
  [ -n "$tail" ] || cat <&4
}

position() { # sets $position to how much of the log was emitted
  while read -r key value; do [ "$key" != pos: ] || position=$value; done </proc/self/fdinfo/4
}

follow() { # reads events until all is over or the server is gone
  tail='' relay='' position=0
  while read -r event rest; do
    case $event in
    relay) relay=$rest ;;
    started) echo "started $rest" >&2 ;;
    first) emit ;;
    follow)
      if [ -z "$tail" ]; then
        position
        tail -c "+$((position + 1))" -f "$log" 2>/dev/null &
        tail=$!
      fi
      ;;
    ended)
      emit
      echo "ended $rest" >&2
      ;;
    over)
      emit
      if [ -z "$tail" ]; then position; else position=$(stat -L -c %s /proc/self/fd/4); fi
      if [ -e "$dir/incomplete" ]; then echo "over $position 1" >&2; else echo "over $position 0" >&2; fi
      break
      ;;
    gone) break ;;
    esac
  done
  kill $tail $relay 2>/dev/null
}
