# Writes standard input to a file, whole or not at all. $1: path, $2: size in bytes.
umask 077
mkdir -p "${1%/*}" || exit 1
head -c "$2" >"$1.part" || exit 1
[ "$(wc -c <"$1.part")" -eq "$2" ] || { echo "the file system is full" >&2; rm -f "$1.part"; exit 1; }
mv "$1.part" "$1" && echo written
