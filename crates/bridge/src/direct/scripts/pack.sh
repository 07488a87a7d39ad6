# Shared by launch.sh and supervise.sh: arguments through the environment. In a command line they would be found by whoever looks
# for a process by its words, as `pkill -f` does, and a command that kills by its own words would kill its supervisor.

pack() { # puts the arguments into ERRAND_ARG_1 and so on
  ERRAND_ARGC=0
  for argument; do
    ERRAND_ARGC=$((ERRAND_ARGC + 1))
    export "ERRAND_ARG_$ERRAND_ARGC=$argument"
  done
  export ERRAND_ARGC
}
