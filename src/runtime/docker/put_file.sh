# Writes standard input to a file, whole or not at all. $1: path, $2: size in bytes.
umask 077
mkdir -p "${1%/*}" || exit 1
: >"$1.part" || exit 1
# What fails from here on lacks space, whatever the tool calls it.
head -c "$2" >"$1.part" 2>/dev/null
[ "$(wc -c <"$1.part")" -eq "$2" ] || { echo "no space left on the file system" >&2; rm -f "$1.part"; exit 1; }
mv "$1.part" "$1" && echo written
