//! Encrypts and decrypts, bound to one task.
//!
//! A sealed text is a version, the id of its key, a nonce, and the text encrypted with XChaCha20-Poly1305. The task's id and the part that
//! it is belong to what is authenticated: a sealed text of another task or another part is refused.

use std::{fmt, path::Path, sync::Arc};

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead as _, KeyInit as _, Payload},
};
use errand_task::{Secret, TaskId};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    Hidden, KeyFileError,
    hidden::{decode_values, encode_values},
    key_file::{self, Key},
};

const VERSION: u8 = 1;
const ID: usize = 8;
const NONCE: usize = 24;

/// What a sealed text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What a launch needs.
    Launch,
    /// The values that are masked.
    Values,
}

/// Why a sealed text cannot be opened, or none can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The key is not in the key file.
    #[error("the key {id} that they are encrypted with is not in the key file")]
    NoKey {
        /// Id of the key.
        id: String,
    },
    /// The text was changed, or belongs to another task.
    #[error("their stored text is damaged")]
    Damaged,
    /// A newer server made it.
    #[error("a newer server has encrypted them")]
    TooNew,
    /// The text cannot be encrypted.
    #[error("they cannot be encrypted")]
    Refused,
}

/// The keys. Cheap to clone; clones share them. `Debug` shows their ids only.
#[derive(Clone)]
pub struct Vault {
    keys: Arc<Vec<(KeyId, Key)>>,
}

/// Tells keys apart, and says nothing about them.
type KeyId = [u8; ID];

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| hex::encode(id))).finish()
    }
}

impl Vault {
    /// The keys of this file. Makes the file with a new key if there is none.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let keys = key_file::read_or_make(path)?;
        Ok(Self { keys: Arc::new(keys.into_iter().map(|key| (id(&key), key)).collect()) })
    }

    /// A vault whose key ends with the process.
    ///
    /// # Errors
    /// [`KeyFileError::NoRandomness`].
    pub fn ephemeral() -> Result<Self, KeyFileError> {
        let key = key_file::new_key()?;
        Ok(Self { keys: Arc::new(vec![(id(&key), key)]) })
    }

    /// Encrypts what a launch of the task needs.
    ///
    /// # Errors
    /// [`VaultError::Refused`].
    pub fn seal_launch(&self, task: TaskId, hidden: &Hidden) -> Result<Vec<u8>, VaultError> {
        self.seal(task, Part::Launch, &hidden.encode().ok_or(VaultError::Refused)?)
    }

    /// Encrypts the values that are masked for the task.
    ///
    /// # Errors
    /// [`VaultError::Refused`].
    pub fn seal_values(&self, task: TaskId, hidden: &Hidden) -> Result<Vec<u8>, VaultError> {
        let values = encode_values(hidden.secret_env.values()).ok_or(VaultError::Refused)?;
        self.seal(task, Part::Values, &values)
    }

    /// Decrypts what a launch of the task needs.
    ///
    /// # Errors
    /// Why it cannot be decrypted.
    pub fn open_launch(&self, task: TaskId, sealed: &[u8]) -> Result<Hidden, VaultError> {
        Hidden::decode(&self.unseal(task, Part::Launch, sealed)?).ok_or(VaultError::Damaged)
    }

    /// Decrypts the values that are masked for the task.
    ///
    /// # Errors
    /// Why they cannot be decrypted.
    pub fn open_values(&self, task: TaskId, sealed: &[u8]) -> Result<Vec<Secret>, VaultError> {
        decode_values(&self.unseal(task, Part::Values, sealed)?).ok_or(VaultError::Damaged)
    }

    fn seal(&self, task: TaskId, part: Part, text: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (id, key) = self.keys.first().ok_or(VaultError::Refused)?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::Refused)?;
        let context = context(task, part);
        let payload = Payload { msg: text, aad: &context };
        let encrypted = cipher(key)?.encrypt(&nonce.into(), payload).map_err(|_| VaultError::Refused)?;
        Ok([&[VERSION], &id[..], &nonce, &encrypted].concat())
    }

    fn unseal(&self, task: TaskId, part: Part, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let (version, rest) = sealed.split_first().ok_or(VaultError::Damaged)?;
        if *version != VERSION {
            return Err(if *version > VERSION { VaultError::TooNew } else { VaultError::Damaged });
        }
        let (id, rest) = rest.split_first_chunk::<ID>().ok_or(VaultError::Damaged)?;
        let (nonce, encrypted) = rest.split_first_chunk::<NONCE>().ok_or(VaultError::Damaged)?;
        let key = self.keys.iter().find(|(known, _)| known == id);
        let (_, key) = key.ok_or_else(|| VaultError::NoKey { id: hex::encode(id) })?;
        let context = context(task, part);
        let payload = Payload { msg: encrypted, aad: &context };
        let text = cipher(key)?.decrypt(&(*nonce).into(), payload).map_err(|_| VaultError::Damaged)?;
        Ok(Zeroizing::new(text))
    }
}

fn cipher(key: &Key) -> Result<XChaCha20Poly1305, VaultError> {
    XChaCha20Poly1305::new_from_slice(&key[..]).map_err(|_| VaultError::Refused)
}

fn id(key: &Key) -> KeyId {
    let hash = Sha256::new().chain_update(b"errand key id").chain_update(&key[..]).finalize();
    let mut id = KeyId::default();
    id.copy_from_slice(&hash[..ID]);
    id
}

fn context(task: TaskId, part: Part) -> Vec<u8> {
    let part = match part {
        Part::Launch => b'l',
        Part::Values => b'v',
    };
    [&task.uuid().as_bytes()[..], &[part]].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use errand_task::Program;

    fn hidden() -> Hidden {
        Hidden {
            program: Program::Shell { text: "login \"hunter2\"\n".to_owned(), shell: None },
            workdir: Some("/w".to_owned()),
            env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            secret_env: BTreeMap::from([("KEY".to_owned(), Secret::new("hunter2\né".to_owned()))]),
        }
    }

    fn vault() -> (tempfile::TempDir, Vault) {
        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::open(&directory.path().join("key")).unwrap();
        (directory, vault)
    }

    #[test]
    fn sealed_parts_open_for_their_task_only() {
        let (_directory, vault) = vault();
        let (task, other) = (TaskId::new(), TaskId::new());
        let argv = Hidden { program: Program::Argv(vec!["a".to_owned(), String::new()]), ..hidden() };
        for hidden in [hidden(), argv] {
            let sealed = vault.seal_launch(task, &hidden).unwrap();
            assert!(!sealed.windows(6).any(|window| window == b"hunter"));
            assert_eq!(vault.open_launch(task, &sealed).unwrap(), hidden);
            assert_eq!(vault.open_launch(other, &sealed), Err(VaultError::Damaged));
            assert_eq!(vault.open_values(task, &sealed), Err(VaultError::Damaged));
            assert_ne!(vault.seal_launch(task, &hidden).unwrap(), sealed, "no nonce is used twice");
        }
        let values = vault.seal_values(task, &hidden()).unwrap();
        assert_eq!(vault.open_values(task, &values).unwrap(), [Secret::new("hunter2\né".to_owned())]);
    }

    #[test]
    fn changed_texts_are_refused() {
        let (_directory, vault) = vault();
        let task = TaskId::new();
        let sealed = vault.seal_values(task, &hidden()).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.open_values(task, &changed).is_err(), "{at}");
            assert!(vault.open_values(task, &sealed[..at]).is_err(), "{at}");
        }
        let newer = [&[2], &sealed[1..]].concat();
        assert_eq!(vault.open_values(task, &newer), Err(VaultError::TooNew));
    }

    #[test]
    fn key_file_is_made_once_and_private() {
        let (directory, vault) = vault();
        let path = directory.path().join("key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = vault.seal_values(TaskId::new(), &hidden()).unwrap();
        let again = Vault::open(&path).unwrap();
        assert_eq!(format!("{vault:?}"), format!("{again:?}"));
        assert!(!format!("{vault:?}").contains(fs::read_to_string(&path).unwrap().trim()));
        fs::remove_file(&path).unwrap();
        let lost = Vault::open(&path).unwrap();
        assert!(matches!(lost.open_values(TaskId::new(), &sealed), Err(VaultError::NoKey { id }) if id.len() == 16));
    }

    #[test]
    fn rotated_keys_open_what_they_sealed() {
        let (directory, vault) = vault();
        let (path, task) = (directory.path().join("key"), TaskId::new());
        let old = vault.seal_launch(task, &hidden()).unwrap();
        let text = format!("# new\n{}\n\n{}", "0f".repeat(32), fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
        let rotated = Vault::open(&path).unwrap();
        assert_eq!(rotated.open_launch(task, &old).unwrap(), hidden());
        let new = rotated.seal_launch(task, &hidden()).unwrap();
        assert_eq!(rotated.open_launch(task, &new).unwrap(), hidden());
        assert!(matches!(vault.open_launch(task, &new), Err(VaultError::NoKey { .. })));
    }

    #[test]
    fn unfit_key_files_are_refused_without_being_quoted() {
        let (directory, _) = vault();
        let path = directory.path().join("key");
        for (text, wanted) in [("\nhunter2\n", "line 2"), ("", "holds 0"), (&"00".repeat(31), "line 1")] {
            fs::write(&path, text).unwrap();
            let said = Vault::open(&path).unwrap_err().to_string();
            assert!(said.contains(wanted) && !said.contains("hunter2"), "{said}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Vault::open(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
