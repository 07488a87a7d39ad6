# Removes task directories. Arguments: root, task ids.
root=$1
shift
for id; do rm -rf "$root/$id" "$root/$id.command"; done
