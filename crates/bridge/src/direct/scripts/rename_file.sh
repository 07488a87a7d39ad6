# Renames a file or a directory. Arguments: root, path, `directory` where it must be one, new path, `directory` where it would be one,
# `new` where no file may have that path yet. Standard output: the entry.
locate "$1" "$2" '' ''
[ "$name" != . ] || refuse INVALID_PATH 'this path ends in no name of its own'
there "./$name" || blocked "./$name"
kind=file
[ ! -d "./$name" ] || [ -L "./$name" ] || kind=directory
[ "$kind" = directory ] || [ -z "$3$5" ] || refuse NOT_A_DIRECTORY ''
from=${PWD%/}/$name device=$(stat -c %d .)
locate "$1" "$4" '' ''
[ "$name" != . ] || refuse INVALID_PATH 'this path ends in no name of its own'
file=./$name
# mv would copy, which is not atomic.
[ "$device" = "$(stat -c %d .)" ] || refuse OTHER_FILE_SYSTEM ''
if there "$file"; then
  [ -z "$6" ] || refuse ALREADY_EXISTS ''
  if [ -d "$file" ] && [ ! -L "$file" ]; then
    [ "$kind" = directory ] || refuse IS_A_DIRECTORY ''
    # Only an empty directory is replaced.
    [ "$from" = "${PWD%/}/$name" ] || why=$(rmdir -- "$file" 2>&1) || refuse - "$why"
  else
    [ "$kind" != directory ] || refuse NOT_A_DIRECTORY ''
  fi
fi
case ${PWD%/}/$name/ in
"$from/") ;;
"$from"/*) [ "$kind" != directory ] || refuse INVALID_PATH 'a directory cannot be moved into itself' ;;
esac
if [ "$from" != "${PWD%/}/$name" ]; then
  # A directory of that name is gone by now, so that mv renames and does not move into it.
  why=$(mv -f -- "$from" "$file" 2>&1) || refuse - "$why"
fi
describe "$file"
