//! What a sandbox may reach over the network.

use std::fs;

use crate::runtime::RuntimeError;

/// The network of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// Nothing but itself.
    None,
    /// The machine's own network: its loopback and its abstract sockets too.
    Host,
}

impl Network {
    /// The network that is asked for.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] for one that there is not.
    pub(super) fn of(mode: &str) -> Result<Self, RuntimeError> {
        match mode {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            other => Err(RuntimeError::Refused {
                detail: format!(
                    "network_mode: {other:?} is not known to the embedded runtime; use \"none\" or \"host\""
                ),
            }),
        }
    }

    /// How names are resolved in it: the content of `resolv.conf`.
    pub(super) fn resolver(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Host => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        }
    }
}
