//! Crashes: the real server is killed at each stage of a task's life, and the connection to the engine breaks. Afterwards no task is lost,
//! none has run twice, each has exactly one completion, and each outcome is the true one.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

mod crash {
    mod connection;
    mod earlier;
    mod engine;
    mod hostile;
    mod invariants;
    mod resident;
    mod secrets;
    mod stages;
    mod torture;
    mod watches;
}
