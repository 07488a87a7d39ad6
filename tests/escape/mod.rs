//! Attempts to leave an embedded sandbox, or to harm the machine or another sandbox from inside it. Each attempt must fail inside, and
//! afterwards the machine and the other sandbox must be unchanged.

mod calls;
mod files;
mod hogs;
mod kernel;
mod network;
mod ordinary;
mod pair;
mod processes;
mod rights;
mod secrets;
mod staying;
