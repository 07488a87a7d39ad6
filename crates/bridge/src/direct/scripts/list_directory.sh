# Lists a directory. Arguments: root, path.
# Standard output: entries, then `end`.
locate "$1" "$2" '' follow
enter "./$name"
[ -r . ] || refuse NOT_PERMITTED 'Permission denied'
set --
# A pattern without a match stays as it is, and no file has that name.
for file in ./* ./.[!.]* ./..?*; do
  set -- "$@" "$file"
  [ $# -lt 64 ] || { describe "$@"; set --; }
done
[ $# = 0 ] || describe "$@"
echo end
