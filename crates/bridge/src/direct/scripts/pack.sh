# Shared by launch.sh and supervise.sh: passes arguments through the environment. On a command line, a search for processes by their
# arguments (such as pkill -f) would find them, and a command that kills by its own arguments would kill its supervisor.

pack() { # puts the arguments into ERRAND_ARG_1 and so on
  ERRAND_ARGC=0
  for argument; do
    ERRAND_ARGC=$((ERRAND_ARGC + 1))
    export "ERRAND_ARG_$ERRAND_ARGC=$argument"
  done
  export ERRAND_ARGC
}
