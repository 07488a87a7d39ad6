# Shared by supervise.sh and command.sh: adds the arguments stored by pack to the argument list, and removes them from the environment.
list='' n=0
while [ "$n" -lt "$ERRAND_ARGC" ]; do
  n=$((n + 1))
  list="$list \"\$ERRAND_ARG_$n\""
done
eval "set -- \"\$@\" $list"
while [ "$n" -gt 0 ]; do
  unset "ERRAND_ARG_$n"
  n=$((n - 1))
done
unset ERRAND_ARGC list n argument
