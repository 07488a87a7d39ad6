//! The API over real sockets: the real server, the real engine, both images where it matters.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

mod api {
    mod caps;
    mod daemons;
    mod disks;
    mod files;
    mod following;
    mod idempotency;
    mod input;
    mod lifecycle;
    mod losses;
    mod malformed;
    mod notifications;
    mod outcomes;
    mod output;
    mod running;
    mod runtimes;
    mod sandboxes;
    mod serving;
    mod spoiling;
    mod stalls;
    mod stopping;
    mod tenants;
    mod timeouts;
    mod validation;
    mod waiting;
}
