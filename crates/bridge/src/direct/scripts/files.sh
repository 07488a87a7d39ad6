# Shared by the scripts for files: finds the place of a path, describes files, and says what is in the way.
#
# Standard error: `refused PROBLEM WORDS`, with - where the words say the problem. All else there is some tool's complaint.
# Below a root each name is entered by itself, links are followed by hand, and where that led is looked at afterwards. What is swapped
# between the look and the deed in the last directory itself is not noticed: a shell has no better means.
LC_ALL=C
export LC_ALL
unset CDPATH

refuse() { # $1: problem, $2: words
  printf 'refused %s %s\n' "$1" "$2" >&2
  exit
}

blocked() { # says why file $1 cannot be had
  refuse - "$(stat -c '' -- "$1" 2>&1)"
}

within() { # the current directory must be the root or below it
  case $top in '' | /) return ;; esac
  case $PWD in
  "$top" | "$top"/*) ;;
  *) refuse OUTSIDE_ROOT '' ;;
  esac
}

enter() { # goes into directory $1
  cd -P "$1" 2>/dev/null || blocked "$1/."
  within
}

# Goes to the directory that holds the last name of a path, and leaves that name in $name: . for the directory itself.
# $1: root, or nothing. $2: path. $3: `make` to make the directories above. $4: `follow` to follow a link in the end.
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
      # Where the root is the top itself, there is nothing above it either.
      [ -z "$top" ] || [ "$PWD" != "$top" ] || refuse OUTSIDE_ROOT ''
      enter ..
      continue
      ;;
    esac
    # Without a root only the last link matters: the others may be such that a shell cannot read.
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

there() { # whether there is such a file, be it a link that leads nowhere
  [ -e "$1" ] || [ -L "$1" ]
}

# Describes files of the current directory: `link NAME_LENGTH TARGET_LENGTH`, a line with both, for each link; then an `entry` for each file
# that is there. A name holds no slash, so that two end it, whatever it holds.
describe() {
  for file; do
    [ -L "$file" ] || continue
    target=$(readlink -n "$file" && echo .) || continue
    target=${target%.}
    printf 'link %s %s\n%s%s\n' "${#file}" "${#target}" "$file" "$target"
  done
  stat -c 'entry %n//%f/%s/%u/%g/%Y/%y' -- "$@" 2>/dev/null
}
