//! Remembers which containers have a fence around their network, in which life and with which rules.
//!
//! With a directory, the memory outlives this server: a server that starts again then puts up no fence that is already there. A fence costs
//! a container of its own, about 0.2 s of the engine's time.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Whether a container has a fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fencing {
    /// It never gets one.
    Never,
    /// It has one in the incarnation that began at this time.
    Since(String),
}

/// The containers whose fencing is known, by their ids.
#[derive(Debug, Default)]
pub(super) struct Fences {
    known: Mutex<HashMap<String, Fencing>>,
    directory: Option<PathBuf>,
}

impl Fences {
    /// Keeps a file for each fenced container in `directory`, which is made when it is first needed.
    pub(super) fn in_directory(directory: PathBuf) -> Self {
        Self { known: Mutex::default(), directory: Some(directory) }
    }

    /// What this server knows of a container.
    pub(super) fn known(&self, id: &str) -> Option<Fencing> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Notes that a container gets no fence.
    pub(super) fn never(&self, id: &str) {
        self.know(id, Fencing::Never);
    }

    /// Whether an earlier server put up a fence with these rules in this life.
    pub(super) fn recall(&self, id: &str, life: &str, rules: &[String]) -> bool {
        let Some(path) = self.path(id) else { return false };
        let is_up = fs::read_to_string(path).is_ok_and(|content| content == record(life, rules));
        if is_up {
            self.know(id, Fencing::Since(life.to_owned()));
        }
        is_up
    }

    /// Notes that a container has a fence with these rules in this life.
    pub(super) fn put_up(&self, id: &str, life: &str, rules: &[String]) {
        self.know(id, Fencing::Since(life.to_owned()));
        if let Some(path) = self.path(id)
            && let Err(error) = write(&path, &record(life, rules))
        {
            // The next server puts the fence up again.
            tracing::warn!(%error, path = %path.display(), "a fence could not be noted");
        }
    }

    /// Forgets a container that was removed.
    pub(super) fn forget(&self, id: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(path) = self.path(id)
            && let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "the note of a fence could not be removed");
        }
    }

    fn know(&self, id: &str, fencing: Fencing) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), fencing);
    }

    /// The file of a container. None for a name: it can belong to another container later.
    fn path(&self, id: &str) -> Option<PathBuf> {
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.directory.as_ref().filter(|_| is_id).map(|directory| directory.join(id))
    }
}

/// The content of a file. A file that was cut by a crash equals no record.
fn record(life: &str, rules: &[String]) -> String {
    format!("{life}\n{}\nend\n", rules.join("\n"))
}

fn write(path: &Path, content: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn rules(rule: &str) -> Vec<String> {
        vec![rule.to_owned()]
    }

    #[test]
    fn next_server_recalls_life_and_rules() {
        let directory = tempfile::tempdir().unwrap();
        let id = "0af3".repeat(16);
        let at = || Fences::in_directory(directory.path().join("fences"));
        at().put_up(&id, "then", &rules("refuse=10.0.0.1"));

        let next = at();
        assert_eq!(next.known(&id), None);
        assert!(!next.recall(&id, "later", &rules("refuse=10.0.0.1")), "another life");
        assert!(!next.recall(&id, "then", &rules("refuse=10.0.0.2")), "other rules");
        assert!(next.recall(&id, "then", &rules("refuse=10.0.0.1")));
        assert_eq!(next.known(&id), Some(Fencing::Since("then".to_owned())));

        next.forget(&id);
        assert_eq!(next.known(&id), None);
        assert!(!at().recall(&id, "then", &rules("refuse=10.0.0.1")), "forgotten");
    }

    #[test]
    fn cut_record_counts_as_no_fence() {
        let directory = tempfile::tempdir().unwrap();
        let id = "0af3".repeat(16);
        let fences = Fences::in_directory(directory.path().to_owned());
        fences.put_up(&id, "then", &rules("refuse=10.0.0.1"));
        let whole = fs::read(directory.path().join(&id)).unwrap();
        for length in 0..whole.len() {
            fs::write(directory.path().join(&id), &whole[..length]).unwrap();
            assert!(!fences.recall(&id, "then", &rules("refuse=10.0.0.1")), "{length} bytes");
        }
    }

    #[test]
    fn fences_accept_only_container_ids() {
        let directory = tempfile::tempdir().unwrap();
        let fences = Fences::in_directory(directory.path().to_owned());
        for id in ["../elsewhere", "errand-bot", ""] {
            fences.put_up(id, "then", &[]);
            assert!(!fences.recall(id, "then", &[]), "{id:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
