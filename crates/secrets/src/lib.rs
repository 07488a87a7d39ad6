//! Encrypts what must be kept of a task's secrets.
//!
//! [`Vault`] owns the keys, which come from a file. [`Hidden`] is what a task's record does not show: the true texts that a launch needs, and
//! the values that must be masked. Does not decide how long either is kept.

mod hidden;
mod key_file;
mod vault;

pub use hidden::Hidden;
pub use key_file::KeyFileError;
pub use vault::{Part, Vault, VaultError};
