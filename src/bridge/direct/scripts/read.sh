# Prints a piece of a log.
#
# Arguments: root, task id, `from` or `tail`, first byte (for from), the most bytes.
# Standard error: `log SIZE START` or `gone`. Standard output: the bytes.
log=$1/$2/output.log
# A command may have put a link or a FIFO there, which could be read for ever.
[ -f "$log" ] && [ ! -L "$log" ] || { echo gone >&2; exit; }
size=$(stat -c %s "$log")
start=$4
if [ "$3" = tail ]; then
  start=0
  [ "$size" -le "$5" ] || start=$((size - $5))
fi
echo "log $size $start" >&2
[ "$start" -ge "$size" ] || tail -c "+$((start + 1))" "$log" | head -c "$5"
