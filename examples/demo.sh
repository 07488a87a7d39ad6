#!/usr/bin/env bash
# Shows Errand at work: builds it, starts a server of its own, runs two commands in a real container, and cleans up.
# Needs Rust and a Docker engine. ERRAND_IMAGE is the sandbox's image (default debian:bookworm-slim).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

image=${ERRAND_IMAGE:-debian:bookworm-slim}
# Nothing of the caller's own settings is heard here.
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
    # On a failure the container must go as well. After a good end it is gone, and there is nothing to say.
    # One that is being made this moment is waited for by asking for it.
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

start_server() { # on a free port, which its first line names
  : >"$work/address"
  # In a process group of its own: Ctrl-C must leave it alive until the container is removed.
  set -m
  errand serve --listen 127.0.0.1:0 --data-dir "$work/data" --image "$image" --network-mode none >>"$work/address" 2>>"$work/server.log" &
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

command -v docker >/dev/null || fail "docker is not installed"
docker version >/dev/null 2>&1 || fail "no Docker engine answers"
docker image inspect "$image" >/dev/null 2>&1 || show docker pull "$image"

say "Start a server with an empty database"
echo "\$ errand serve --listen 127.0.0.1:0 --data-dir $work/data --image $image --network-mode none &"
start_server
cat "$work/address"

say "Start a command in the background; this makes the bot's container and returns the task's id"
# shellcheck disable=SC2016 # the sandbox's shell expands it
count='for i in 1 2 3 4 5; do echo "step $i of 5"; sleep 1; done'
task=$(show errand run -d --bot demo --session chat --description 'count to five' -- "$count" | tee /dev/stderr | tail -n 1)
[ -n "$task" ] || fail "no task was started"

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

say "A second command fails; wait passes its exit code on"
task=$(show errand run -d --bot demo --session chat -- 'echo "no such luck"; exit 3' | tee /dev/stderr | tail -n 1)
code=0
show errand wait "$task" || code=$?
echo "exit code: $code"
[ "$code" -eq 3 ] || fail "the exit code is not 3"

say "Remove the container, stop the server"
show errand sandbox rm --bot demo
kill "$server"
code=0
wait "$server" || code=$?
server=
[ "$code" -eq 0 ] || fail "the server did not end well"
echo
echo "All as expected."
