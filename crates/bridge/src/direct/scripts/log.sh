# Shared by launch.sh, attach.sh, probe.sh and read.sh: how much was printed, and what of it was not kept.
#
# `gap` holds the first byte that `output.log` is not read for and the size of all output. The bytes up to that size which were kept are in
# `output.tail`. The resident bridge keeps them behind a hole in `output.log` instead, and `gap` holds where the hole ends.

measure() { # $1: task directory. Sets $size; $lacks and $resumes, the first byte that was not kept and the first after it, - where there are none;
  # and where the bytes from $resumes on are: in $rest, from its byte $skip.
  size=0 lacks=- resumes=- rest=$1/output.log skip=0 start='' end=''
  [ ! -f "$rest" ] || size=$(stat -c %s "$rest")
  [ -f "$1/gap" ] || return 0
  # Bounded: a command may have put a file without end there.
  { lost=$(head -c 64 "$1/gap"); } 2>/dev/null
  read -r start end lost <<END
$lost
END
  [ -n "$start" ] && [ -n "$end" ] && [ ${#start} -le 18 ] && [ ${#end} -le 18 ] || return 0
  case $start$end in *[!0-9]*) return 0 ;; esac
  lacks=$start resumes=$end skip=$end
  if [ -f "$1/output.tail" ]; then
    rest=$1/output.tail skip=0 size=$end
    resumes=$((end - $(stat -c %s "$rest")))
  elif [ "$size" -lt "$end" ]; then
    size=$end
  fi
}
