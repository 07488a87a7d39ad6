# Removes a file or a directory. Arguments: root, path, `directory` where it must be one, `recursive` or nothing.
# Standard output: `removed`.
locate "$1" "$2" '' ''
[ "$name" != . ] || refuse INVALID_PATH 'this path ends in no name of its own'
file=./$name
there "$file" || blocked "$file"
if [ -d "$file" ] && [ ! -L "$file" ]; then
  if [ -n "$4" ]; then
    why=$(rm -rf -- "$file" 2>&1) || refuse - "$why"
  else
    why=$(rmdir -- "$file" 2>&1) || refuse - "$why"
  fi
else
  [ -z "$3" ] || refuse NOT_A_DIRECTORY ''
  why=$(rm -f -- "$file" 2>&1) || refuse - "$why"
fi
echo removed
