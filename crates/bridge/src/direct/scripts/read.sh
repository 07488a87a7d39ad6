# Prints a part of a log.
#
# Arguments: root, task id, from or tail, first byte (only for from), the most bytes.
# Standard error: log SIZE START GAP_START GAP_END, the last two - where nothing is missing, or gone. Standard output: the bytes before a
# gap and those after it, joined.
log=$1/$2/output.log
# A command may have put a link or a FIFO in place of the log, and reading that could block for ever.
[ -f "$log" ] && [ ! -L "$log" ] || { echo gone >&2; exit; }
measure "$1/$2"
from=$4 left=$5
if [ "$3" = tail ]; then
  from=0
  [ "$size" -le "$left" ] || from=$((size - left))
fi
echo "log $size $from $lacks $resumes" >&2

bytes() { # $1: file, $2: first byte to print, $3: the most bytes
  [ "$3" -le 0 ] || tail -c "+$(($2 + 1))" "$1" | head -c "$3"
}

if [ "$lacks" = - ]; then
  [ "$from" -ge "$size" ] || bytes "$log" "$from" "$left"
  exit
fi
if [ "$from" -lt "$lacks" ]; then
  count=$((lacks - from))
  [ "$count" -le "$left" ] || count=$left
  bytes "$log" "$from" "$count"
  left=$((left - count)) from=$resumes
fi
[ "$from" -ge "$resumes" ] || from=$resumes
[ "$from" -ge "$size" ] || bytes "$rest" $((from - resumes + skip)) "$left"
