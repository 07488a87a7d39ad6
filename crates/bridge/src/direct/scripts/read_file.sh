# Reads a file. Arguments: root, path, directory where it must be one, first byte, the most bytes or nothing.
# Standard output: its entry, then the bytes. Standard error, after them: `end SIZE`.
locate "$1" "$2" '' follow
file=./$name
[ -e "$file" ] || blocked "$file"
[ ! -d "$file" ] || refuse IS_A_DIRECTORY ''
[ -z "$3" ] || refuse NOT_A_DIRECTORY ''
# Refuses files whose reads could block or never end.
[ -f "$file" ] || refuse NOT_A_FILE ''
why=$({ : <"$file"; } 2>&1) || refuse - "$why"
exec 4<"$file"
if [ -n "$top" ]; then
  opened=$(readlink -n /proc/self/fd/4 && echo .)
  case ${opened%.} in
  # If the file was replaced meanwhile, the new one serves as well.
  "${PWD%/}/$name" | "${PWD%/}/$name (deleted)") ;;
  *) refuse OUTSIDE_ROOT '' ;;
  esac
fi
stat -L -c 'entry %n//%f/%s/%u/%g/%Y/%y' /proc/self/fd/4
content() {
  if [ "$1" = 0 ]; then cat; else tail -c "+$(($1 + 1))"; fi
}
if [ -z "$5" ]; then content "$4" <&4; else content "$4" <&4 | head -c "$5"; fi
echo "end $(stat -L -c %s /proc/self/fd/4)" >&2
