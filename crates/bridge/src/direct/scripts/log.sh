# Shared by launch.sh, attach.sh, probe.sh and read.sh: how many bytes were printed, and which of them were not kept.
#
# The file gap holds two numbers: the first byte that must not be read from output.log, and the size of the whole output. The kept bytes up
# to that size are in output.tail. The resident bridge keeps them in output.log behind a hole instead; its gap holds the end of the hole as
# the second number.

measure() { # $1: task directory. Sets $size; $lacks and $resumes, the first byte not kept and the first after the gap, - without a gap;
  # and $rest and $skip: the file with the bytes from $resumes on, and where in that file they begin.
  size=0 lacks=- resumes=- rest=$1/output.log skip=0 start='' end=''
  [ ! -f "$rest" ] || size=$(stat -c %s "$rest")
  [ -f "$1/gap" ] || return 0
  # Bounded: a command may have replaced the file with one without end.
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
