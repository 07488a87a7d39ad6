#!/usr/bin/env bash
# Shows Errand at work: builds it, starts a server of its own, runs commands in a real sandbox, and cleans up.
# Needs Rust, and either a Docker engine or bubblewrap, which is installed where this may be done.
# ERRAND_DEMO_RUNTIME=docker or embedded forces one of the two; ERRAND_IMAGE is the image with Docker (default debian:bookworm-slim).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

image=${ERRAND_IMAGE:-debian:bookworm-slim}
runtime=${ERRAND_DEMO_RUNTIME:-auto}
# Ignore the caller's own settings.
for variable in ${!ERRAND_@}; do unset "$variable"; done

work=$(mktemp -d)
server=
bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

show() { # prints a command as one would type it, then runs it
  local word
  printf '%s$' "$bold"
  for word in "$@"; do
    case $word in
    *[!A-Za-z0-9_.:=/-]*) printf " '%s'" "$word" ;;
    *) printf ' %s' "$word" ;;
    esac
  done
  printf '%s\n' "$plain"
  "$@"
}

start() { # shows and runs what starts a task, whose id is the last line
  show "$@" | tee "$work/started"
  task=$(tail -n 1 "$work/started")
  [ -n "$task" ] || fail "no task was started"
}

fail() {
  printf '\ndemo: %s\n' "$*" >&2
  if [ -s "$work/server.log" ]; then
    echo "demo: the server's last lines:" >&2
    tail -n 20 "$work/server.log" >&2
  fi
  exit 1
}

clean_up() {
  local code=$?
  trap - EXIT
  trap '' INT TERM
  if [ -n "$server" ]; then
    # After a failure, remove the sandbox too. After success it is already removed, so errors are ignored. Requesting the sandbox waits for
    # one that is being made at this moment.
    if errand sandbox ensure --bot demo >/dev/null 2>&1; then errand sandbox rm --bot demo >/dev/null 2>&1 || true; fi
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$work"
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

usable() { # the runtime that works here, of those that may be used
  errand doctor --json --runtime "$runtime" --data-dir "$work/data" | sed -n 's/^{"runtime":"\([a-z]*\)".*/\1/p'
}

install_bubblewrap() { # where it may be done
  if [ "$(id -u)" -ne 0 ]; then
    echo "bubblewrap is not installed, and installing it takes root."
  elif command -v apt-get >/dev/null; then
    show apt-get install -y -q bubblewrap || { show apt-get update -q && show apt-get install -y -q bubblewrap; }
  elif command -v dnf >/dev/null; then
    show dnf install -y -q bubblewrap
  elif command -v apk >/dev/null; then
    show apk add --quiet bubblewrap
  fi
}

start_server() { # on a free port, which its first line names
  : >"$work/address"
  # The server has its own process group: Ctrl-C must not end it before the sandbox is removed.
  set -m
  errand "${serve[@]}" >>"$work/address" 2>>"$work/server.log" &
  server=$!
  set +m
  for _ in $(seq 200); do
    kill -0 "$server" 2>/dev/null || fail "the server did not start"
    address=$(sed -n 's/.* listening on //p' "$work/address")
    export ERRAND_SERVER="http://$address"
    if [ -n "$address" ] && errand health >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "the server did not become ready"
}

say "Build"
show cargo build --release --locked
PATH="${CARGO_TARGET_DIR:-$PWD/target}/release:$PATH"

say "Look at what this machine offers"
if [ "$runtime" != docker ] && [ -z "$(usable)" ] && ! command -v bwrap >/dev/null; then
  install_bubblewrap
fi
show errand doctor --runtime "$runtime" --data-dir "$work/data" || true
runtime=$(usable)
[ -n "$runtime" ] || fail "no sandboxes can be made here: see above for the remedy"

# Report an unanswered question after 2 s instead of the default of 45 s.
serve=(serve --listen 127.0.0.1:0 --data-dir "$work/data" --runtime "$runtime" --network-mode none
  --stall-after 2s --stall-check-interval 200ms)
if [ "$runtime" = docker ]; then
  serve+=(--image "$image")
  ! command -v docker >/dev/null || docker image inspect "$image" >/dev/null 2>&1 || show docker pull "$image"
fi

say "Start a server with an empty database"
echo "\$ errand ${serve[*]} &"
start_server
cat "$work/address"

say "Run a command in the bot's sandbox, which is made for it: another user on another machine, as far as it can see"
show errand run --bot demo --session chat -- 'id; hostname 2>/dev/null || uname -n; ls -a /home /workspace; ps ax 2>/dev/null | head -n 5' |
  tee "$work/output"
grep -q 'uid=' "$work/output" || fail "the command did not run"

say "Start a command in the background; this returns the task's id at once"
# shellcheck disable=SC2016 # the sandbox's shell expands it
count='for i in 1 2 3 4 5; do echo "step $i of 5"; sleep 1; done'
start errand run -d --bot demo --session chat --description 'count to five' -- "$count"

say "It runs"
sleep 1
show errand ps --bot demo | tee "$work/ps"
grep -q "$task" "$work/ps" || fail "ps does not list the task"

say "Follow its output live, to the end"
show errand logs -f "$task" | tee "$work/output"
grep -q 'step 5 of 5' "$work/output" || fail "the output is not whole"

say "Its session was told: the notification waits until it is acknowledged"
show errand events --bot demo --session chat | tee "$work/events"
grep -Eq "completed +$task .*exited 0" "$work/events" || fail "the completion was not announced"

say "A command asks a question that nobody answers: the session is told that it waits"
# shellcheck disable=SC2016 # the sandbox's shell expands it
ask='printf "Delete it? [y/N] "; read -r answer; echo "you said $answer"'
start errand run -d -i --bot demo --session chat -- "$ask"
told=
for _ in $(seq 150); do
  errand events --bot demo --session chat >"$work/events"
  if grep -q "stalled *$task" "$work/events"; then told=yes && break; fi
  sleep 0.2
done
[ -n "$told" ] || fail "the stall was not announced"
show errand events --bot demo --session chat

say "Answer it through its standard input"
echo "\$ echo yes | errand attach --from 0 $task"
echo yes | errand attach --from 0 "$task" | tee "$work/output"
grep -q 'you said yes' "$work/output" || fail "the answer did not arrive"
show errand wait "$task"

say "The last command fails; wait passes its exit code on"
start errand run -d --bot demo --session chat -- 'echo "no such luck"; exit 3'
code=0
show errand wait "$task" || code=$?
echo "exit code: $code"
[ "$code" -eq 3 ] || fail "the exit code is not 3"

say "Remove the sandbox with everything in it, stop the server"
show errand sandbox rm --bot demo
kill "$server"
code=0
wait "$server" || code=$?
server=
[ "$code" -eq 0 ] || fail "the server did not end well"
echo
echo "All as expected."
