# Describes a file. Arguments: root, path, `directory` where it must be one, `follow` or nothing.
# Standard output: its entry.
locate "$1" "$2" '' "$4"
there "./$name" || blocked "./$name"
[ -z "$3" ] || [ -d "./$name" ] || refuse NOT_A_DIRECTORY ''
describe "./$name"
