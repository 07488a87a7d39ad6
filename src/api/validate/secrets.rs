//! Validates the secret variables of a command. No message repeats a value.

use std::collections::{BTreeMap, HashMap};

use super::Violations;
use errand_task::Secret;

/// The most secret variables.
const ENTRIES: usize = 256;
/// The most bytes of all secret variables, counting names and values.
const BYTES: usize = 64 * 1024;
/// The most bytes of one value.
const VALUE: usize = 32 * 1024;
/// Variables that a shell reads or sets for itself, or that it does not let others set.
const OF_SHELLS: [&str; 24] = [
    "BASHOPTS",
    "BASHPID",
    "CDPATH",
    "ENV",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "IFS",
    "LINENO",
    "MAIL",
    "MAILCHECK",
    "MAILPATH",
    "OLDPWD",
    "OPTARG",
    "OPTIND",
    "PATH",
    "POSIXLY_CORRECT",
    "PPID",
    "PS4",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "UID",
];

/// Reads the secret variables.
pub(super) fn secret_env(
    given: HashMap<String, String>,
    env: &HashMap<String, String>,
    violations: &mut Violations,
) -> BTreeMap<String, Secret> {
    // In a fixed order, so that equal requests get equal answers.
    let secrets: BTreeMap<String, Secret> = given.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
    if secrets.len() > ENTRIES {
        violations.add("secret_env", format!("must have at most {ENTRIES} entries, has {}", secrets.len()));
    }
    violations.bytes("secret_env", secrets.iter().map(|(name, value)| name.len() + value.expose().len()).sum(), BYTES);
    for (name, value) in &secrets {
        let path = format!("secret_env[{name:?}]");
        if !is_name(name) {
            violations.add(&path, "must have a name of letters, digits and `_` that does not begin with a digit");
        } else if OF_SHELLS.contains(&name.as_str()) || name.starts_with("BASH_") || name.starts_with("ERRAND_") {
            violations.add(&path, "must not have a name that shells or Errand use for themselves");
        }
        if env.contains_key(name) {
            violations.add(&path, "must not be in env too");
        }
        let size = value.expose().len();
        if !(1..=VALUE).contains(&size) {
            violations.add(&path, format!("must have a value of 1 to {VALUE} bytes, has {size}"));
        }
        violations.no_nul(&path, value.expose());
    }
    secrets
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    name.as_bytes().first().is_some_and(is_letter)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
