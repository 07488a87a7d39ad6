//! Attempts to leave an embedded sandbox, or to harm from inside it the machine or another sandbox. Each has to fail inside, and afterwards
//! the machine and the other sandbox have to be as they were.

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
