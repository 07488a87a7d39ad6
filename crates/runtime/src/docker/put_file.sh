# Writes standard input to a file, whole or not at all. $1: path, $2: size in bytes, $3: permissions.
umask 077

give_up() { # what is still being sent is read: the engine drops what was said together with what was not read
  cat >/dev/null
  exit 1
}

mkdir -p "${1%/*}" || give_up
# Two may be writing the same file.
part=$1.$$.part
: >"$part" || give_up
# What fails from here on lacks space, whatever the tool calls it.
head -c "$2" >"$part" 2>/dev/null
[ "$(wc -c <"$part")" -eq "$2" ] || { echo "no space left on the file system" >&2; rm -f "$part"; give_up; }
chmod "$3" "$part" && mv "$part" "$1" && echo written
