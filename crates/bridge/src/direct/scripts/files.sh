# Shared by the scripts for files: resolves paths, describes files, and reports why a call is refused.
#
# Standard error: refused PROBLEM WORDS, with - where PROBLEM follows from WORDS, the message of a tool. Any other line comes from a tool.
#
# Below a root, each name is entered by itself, links are followed by hand, and the resulting directory is checked afterwards. A swap in the
# last directory between the check and the operation goes unnoticed: a shell has no better means.
LC_ALL=C
export LC_ALL
unset CDPATH

refuse() { # $1: problem, $2: words
  printf 'refused %s %s\n' "$1" "$2" >&2
  exit
}

blocked() { # reports why file $1 is not usable
  refuse - "$(stat -c '' -- "$1" 2>&1)"
}

within() { # fails unless the current directory is the root or below it
  case $top in '' | /) return ;; esac
  case $PWD in
  "$top" | "$top"/*) ;;
  *) refuse OUTSIDE_ROOT '' ;;
  esac
}

enter() { # changes to directory $1
  cd -P "$1" 2>/dev/null || blocked "$1/."
  within
}

# Changes to the directory that holds the last name of a path, and sets $name to that name: . for the directory itself.
# $1: root, or nothing. $2: path. $3: make to create the missing directories above. $4: follow to follow a link in last position.
locate() {
  top='' rest=$2 links=0
  enter "${1:-/}"
  [ -z "$1" ] || top=$PWD
  while :; do
    while :; do
      case $rest in /*) rest=${rest#/} ;; *) break ;; esac
    done
    case $rest in
    '') name=. && return ;;
    */*) next=${rest%%/*} rest=${rest#*/} last='' ;;
    *) next=$rest rest='' last=1 ;;
    esac
    case $next in
    .) continue ;;
    ..)
      # If the root is / itself, .. stays there.
      [ -z "$top" ] || [ "$PWD" != "$top" ] || refuse OUTSIDE_ROOT ''
      enter ..
      continue
      ;;
    esac
    # Without a root only a link in last position matters: a shell may be unable to read the others.
    if [ -n "$last" ]; then look=$4; else look=$top; fi
    if [ -n "$look" ] && [ -L "./$next" ]; then
      links=$((links + 1))
      [ "$links" -le 40 ] || refuse TOO_MANY_LINKS ''
      target=$(readlink -n "./$next" && echo .) || blocked "./$next"
      target=${target%.}
      case $target in
      /*)
        [ -z "$top" ] || refuse OUTSIDE_ROOT ''
        enter /
        ;;
      esac
      if [ -n "$last" ]; then rest=$target; else rest=$target/$rest; fi
      continue
    fi
    [ -z "$last" ] || { name=$next && return; }
    if [ -n "$3" ] && [ ! -d "./$next" ]; then
      why=$(mkdir "./$next" 2>&1) || [ -d "./$next" ] || {
        [ ! -e "./$next" ] || refuse NOT_A_DIRECTORY ''
        [ ! -L "./$next" ] || blocked "./$next/."
        refuse - "$why"
      }
    fi
    enter "./$next"
  done
}

there() { # whether such a file exists; a dangling link counts too
  [ -e "$1" ] || [ -L "$1" ]
}

# Describes files of the current directory: for each link a line with the lengths of its name and its target, then both; then an entry for
# each file that exists. A name contains no slash, so two slashes end it unambiguously.
describe() {
  for file; do
    [ -L "$file" ] || continue
    target=$(readlink -n "$file" && echo .) || continue
    target=${target%.}
    printf 'link %s %s\n%s%s\n' "${#file}" "${#target}" "$file" "$target"
  done
  stat -c 'entry %n//%f/%s/%u/%g/%Y/%y' -- "$@" 2>/dev/null
}
