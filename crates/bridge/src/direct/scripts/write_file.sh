# Writes a file: all of it, or nothing.
#
# Arguments: root, path, directory where it would be one, mode or nothing, make or nothing for the directories above, new where no file may
# exist yet, a word for the name of the unfinished file.
# Standard input: a line with a number and that many bytes, repeated; then end. Standard output: the entry.
follow=follow
[ -z "$6" ] || follow=''
locate "$1" "$2" "$5" "$follow"
[ "$name" != . ] && [ -z "$3" ] || refuse IS_A_DIRECTORY ''
file=./$name mode=$4 owner=''
if there "$file"; then
  [ -z "$6" ] || refuse ALREADY_EXISTS ''
  [ ! -d "$file" ] || refuse IS_A_DIRECTORY ''
  [ -f "$file" ] || refuse NOT_A_FILE ''
  owner=$(stat -c %u:%g -- "$file")
  [ -n "$mode" ] || mode=$(stat -c %a -- "$file")
fi

part=./.errand-$7.part
umask 077
why=$({ set -C && : >"$part"; } 2>&1) || refuse - "$why"
trap 'rm -f "$part"' EXIT
trap exit HUP INT TERM PIPE
exec 5>>"$part"
whole=''
while read -r size; do
  [ "$size" != end ] || { whole=1 && break; }
  why=$(dd bs="$size" count=1 iflag=fullblock 2>&1 >&5) || refuse - "$why"
done
# The client is gone.
[ -n "$whole" ] || exit
exec 5>&-

# Only a privileged user may give a file away; for others the file becomes theirs, as with any editor.
[ -z "$owner" ] || chown "$owner" "$part" 2>/dev/null
why=$(chmod "${mode:-644}" "$part" 2>&1) || refuse - "$why"
[ ! -d "$file" ] || [ -L "$file" ] || refuse IS_A_DIRECTORY ''
if [ -n "$6" ]; then
  # Unlike mv, this fails when another writer was faster.
  why=$(ln "$part" "$file" 2>&1) || refuse - "$why"
else
  why=$(mv -f -T "$part" "$file" 2>&1) || case $why in
  *option*) why=$(mv -f "$part" "$file" 2>&1) || refuse - "$why" ;;
  *) refuse - "$why" ;;
  esac
fi
describe "$file"
