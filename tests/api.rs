//! The API over real sockets: the real server, the real engine, both images where it matters.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

mod api {
    mod adoption;
    mod caps;
    mod conditions;
    mod daemons;
    mod direct;
    mod disks;
    mod fairness;
    mod files;
    mod following;
    mod full_disk;
    mod guest;
    mod hidden;
    mod idempotency;
    mod idle;
    mod inherited;
    mod input;
    mod kept_secrets;
    mod lifecycle;
    mod limits;
    mod losses;
    mod malformed;
    mod memory;
    mod notifications;
    mod outcomes;
    mod output;
    mod policies;
    mod queueing;
    mod reading;
    mod receipts;
    mod retained;
    mod retention;
    mod routing;
    mod running;
    mod runtimes;
    mod sandboxes;
    mod screens;
    mod secrets;
    mod serving;
    mod signals;
    mod sizes;
    mod spoiled;
    mod spoiling;
    mod stalls;
    mod stopping;
    mod tenants;
    mod timeouts;
    mod tokens;
    mod trees;
    mod validation;
    mod waiting;
    mod watches;
}
