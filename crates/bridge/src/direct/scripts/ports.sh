# Reports the TCP ports that listen in this sandbox, once they differ from those that the caller knows.
#
# Arguments: root, seconds to wait for a difference, the most ports, the known ports. With 0 seconds, answers at once.
# Standard output: `ports` and the numbers. Nothing when the sandbox does not show its sockets.
# Standard input is not used, and no packet is sent.
wait=$2 most=${3:-4096}
known=' ' count=0
shift 2
[ $# -eq 0 ] || shift
for port; do
  known="$known$port "
  count=$((count + 1))
done

listen() { # sets $found, and $number to how many they are
  found=' ' number=0 readable=
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    readable=1
    # The kernel lists listening sockets first: the rest of the table is never read.
    while read -r slot local remote state rest; do
      case $slot in sl) continue ;; esac
      [ "$state" = 0A ] || break
      port=$((0x${local##*:}))
      case $found in *" $port "*) continue ;; esac
      found="$found$port "
      number=$((number + 1))
      [ "$number" -lt "$most" ] || return 0
    done <"$table"
  done
  [ -n "$readable" ]
}

differs() { # true when the found ports are not the known ones
  [ "$number" = "$count" ] || return 0
  for port in $found; do
    case $known in *" $port "*) ;; *) return 0 ;; esac
  done
  return 1
}

read -r now rest </proc/uptime
end=$((${now%.*} + wait))
while listen; do
  read -r now rest </proc/uptime
  if [ "$wait" = 0 ] || differs || [ "${now%.*}" -ge "$end" ]; then
    echo "ports$found"
    exit 0
  fi
  # Some tools know only whole seconds.
  sleep 0.2 2>/dev/null || sleep 1
done
echo "neither /proc/net/tcp nor /proc/net/tcp6 can be read" >&2
