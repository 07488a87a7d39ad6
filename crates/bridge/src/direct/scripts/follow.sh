# Shared by launch.sh and attach.sh: turns events into control lines and output.

relay() { # turns the words from the server into events; the end of its input becomes an event too
  while read -r word; do echo "$word"; done
  echo gone
}

emit() { # emits the part of the log that is not emitted yet; tail emits the rest
  [ -n "$tail" ] || cat <&4
}

position() { # sets $position to how many bytes of the log are emitted
  while read -r key value; do [ "$key" != pos: ] || position=$value; done </proc/self/fdinfo/4
}

follow() { # reads events until the task is over or the server is gone
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
    oom) echo "oom $rest" >&2 ;;
    ended)
      emit
      echo "ended $rest" >&2
      ;;
    over)
      emit
      measure "$dir"
      # A removed log is still open here.
      [ -f "$dir/output.log" ] || size=$(stat -L -c %s /proc/self/fd/4)
      if [ -e "$dir/incomplete" ]; then incomplete=1; else incomplete=0; fi
      echo "over $size $incomplete $lacks $resumes" >&2
      break
      ;;
    gone) break ;;
    esac
  done
  kill $tail $relay 2>/dev/null
}
