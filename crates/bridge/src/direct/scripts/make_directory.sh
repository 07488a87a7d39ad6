# Makes a directory. Arguments: root, path, `directory` where it must be one, mode or nothing, `make` or nothing for the directories above.
# Standard output: its entry.
locate "$1" "$2" "$5" ''
file=./$name
if there "$file"; then
  [ -n "$5" ] || refuse ALREADY_EXISTS ''
  # A link to a directory below the root will do.
  locate "$1" "$2" '' follow
  file=./$name
  [ -d "$file" ] || refuse ALREADY_EXISTS ''
else
  why=$(mkdir -- "$file" 2>&1) || refuse - "$why"
  [ -z "$4" ] || why=$(chmod "$4" "$file" 2>&1) || refuse - "$why"
fi
describe "$file"
