# Lists a directory. Arguments: root, path.
# Standard output: entries, then `end`.
locate "$1" "$2" '' follow
enter "./$name"
[ -r . ] || refuse NOT_PERMITTED 'Permission denied'
set --
# Patterns that match nothing stay as they are, and are no file.
for file in ./* ./.[!.]* ./..?*; do
  set -- "$@" "$file"
  [ $# -lt 64 ] || { describe "$@"; set --; }
done
[ $# = 0 ] || describe "$@"
echo end
