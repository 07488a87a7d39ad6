//! The runtimes of one server.

use std::sync::Arc;

use crate::Runtime;

/// The runtimes that a server offers, by name. Never empty; cheap to clone.
#[derive(Clone)]
pub struct Runtimes {
    default: Arc<dyn Runtime>,
    others: Arc<[Arc<dyn Runtime>]>,
}

/// The server does not offer the runtime that a sandbox belongs to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this server does not offer the runtime {name:?}; start it with --runtime {name}")]
pub struct UnknownRuntime {
    /// The runtime's name.
    pub name: String,
}

impl Runtimes {
    /// A server with one runtime.
    pub fn one(runtime: Arc<dyn Runtime>) -> Self {
        Self::new(runtime, [])
    }

    /// A server with several runtimes. New sandboxes are made with `default`. If two runtimes have the same name, the first one serves.
    pub fn new(default: Arc<dyn Runtime>, others: impl IntoIterator<Item = Arc<dyn Runtime>>) -> Self {
        Self { default, others: others.into_iter().collect() }
    }

    /// The runtime of new sandboxes.
    pub fn default(&self) -> &Arc<dyn Runtime> {
        &self.default
    }

    /// The runtime with this name.
    ///
    /// # Errors
    /// [`UnknownRuntime`] when the server does not offer it. This says nothing about the sandboxes of that runtime.
    pub fn named(&self, name: &str) -> Result<&Arc<dyn Runtime>, UnknownRuntime> {
        let mut all = std::iter::once(&self.default).chain(self.others.iter());
        all.find(|runtime| runtime.name() == name).ok_or_else(|| UnknownRuntime { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use crate::fake::FakeRuntime;

    #[test]
    fn runtimes_are_found_by_name() {
        let (first, second) = (FakeRuntime::named("first"), FakeRuntime::named("second"));
        let runtimes = Runtimes::new(first, [second as Arc<dyn Runtime>]);
        assert_eq!(runtimes.default().name(), "first");
        for name in ["first", "second"] {
            assert_eq!(runtimes.named(name).unwrap().name(), name);
        }
        let unknown = runtimes.named("third").err().unwrap();
        assert_eq!(
            unknown.to_string(),
            "this server does not offer the runtime \"third\"; start it with --runtime third"
        );
    }
}
