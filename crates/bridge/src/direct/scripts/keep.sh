# Part of supervise.sh: keeps the output of the command. Output goes into the log as it arrives, up to the limit. Bytes beyond the limit are
# counted, and the last of them are stored beside the log at the end. The command never waits for a full disk, and its pipe never breaks.

# The size of one read, and the most bytes kept of the end.
piece=65536

take() { # $1: the most bytes. Adds one piece to the log; fails at the end of the output.
  said=$(LC_ALL=C dd bs="$1" count=1 2>&1 >>"$dir/output.log") || true >"$dir/incomplete"
  case $said in 0+0*) return 1 ;; esac
}

keep() { # $1: the most bytes that are kept, 0: all
  limit=$1
  end=$piece
  if [ "$limit" -gt 0 ]; then
    [ "$limit" -ge "$piece" ] || piece=$limit
    [ $((limit / 2)) -ge "$end" ] || end=$((limit / 2))
  fi
  # The first piece is taken by itself, so that followers get it at once. Most commands print no more than that.
  take "$piece" || return 0
  echo first >&5
  exec 3>&- 5>&-
  if [ "$limit" -eq 0 ]; then
    tee -a "$dir/output.log" >/dev/null || true >"$dir/incomplete"
    return
  fi
  before=$(stat -c %s "$dir/output.log")
  # The kernel stops the log at the limit; the other outputs go on. The unit is 512 bytes.
  [ -z "$BASH_VERSION" ] || set -o posix
  {
    {
      ulimit -f $(((limit + 511) / 512))
      exec tee -a "$dir/output.log" /proc/self/fd/7
    } 2>/dev/null | tail -c "$end" >"$dir/output.tail" 7>&-
  } 7>&1 | wc -c >"$dir/count"
  read -r more 2>/dev/null <"$dir/count" || { more=0; true >"$dir/incomplete"; }
  total=$((before + more)) wanted=$((before + more))
  if [ "$total" -gt "$limit" ]; then
    wanted=$limit
    { echo "$((limit - $(stat -c %s "$dir/output.tail"))) $total" >"$dir/gap.part" && mv "$dir/gap.part" "$dir/gap"; } 2>/dev/null ||
      true >"$dir/incomplete"
  else
    rm -f "$dir/output.tail"
  fi
  rm -f "$dir/count"
  [ "$(stat -c %s "$dir/output.log")" -ge "$wanted" ] || true >"$dir/incomplete"
}
