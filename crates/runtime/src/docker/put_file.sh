# Writes standard input to a file, whole or not at all. $1: path, $2: size in bytes, $3: permissions.
#
# Reads exactly $2 bytes, also after a failure: the input need not end, and the engine drops a message that comes before all input was read.
umask 077

give_up() {
  head -c "$1" >/dev/null
  exit 1
}

mkdir -p "${1%/*}" || give_up "$2"
# Two processes may be writing the same file.
part=$1.$$.part
true >"$part" || give_up "$2"
# Any failure from here on is a lack of space, whatever the tool calls it.
head -c "$2" | { cat >"$part" 2>/dev/null || cat >/dev/null; }
[ "$(wc -c <"$part")" -eq "$2" ] || { echo "no space left on the file system" >&2; rm -f "$part"; exit 1; }
chmod "$3" "$part" && mv "$part" "$1" && echo written
