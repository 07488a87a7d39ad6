//! `--secret-env`: where the values of secret variables come from. Never from the command line itself, which everybody on this machine can
//! see.

use std::{collections::HashMap, env, fs, path::PathBuf};

use super::error::CliError;

/// A secret variable, and where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    name: String,
    /// None: this program's own environment.
    file: Option<PathBuf>,
}

/// Reads `NAME` or `NAME=@FILE`.
pub(super) fn parse(text: &str) -> Result<SecretSource, String> {
    let (name, file) = match text.split_once('=') {
        None => (text, None),
        Some((name, value)) => match value.strip_prefix('@') {
            Some(file) if !file.is_empty() => (name, Some(PathBuf::from(file))),
            // The message does not repeat the value.
            _ => {
                return Err("expected NAME, to take the value from the environment, or NAME=@FILE; \
                            a value on the command line would be visible to others"
                    .to_owned());
            }
        },
    };
    if name.is_empty() {
        return Err("expected NAME or NAME=@FILE".to_owned());
    }
    Ok(SecretSource { name: name.to_owned(), file })
}

/// Reads the values. A line break at the end of a file is left out.
///
/// # Errors
/// When a variable is given twice or is not set, or a file cannot be read or is not text.
pub(super) fn read(sources: Vec<SecretSource>) -> Result<HashMap<String, String>, CliError> {
    let mut values = HashMap::with_capacity(sources.len());
    for SecretSource { name, file } in sources {
        let value = match file {
            None => env::var(&name).map_err(|error| {
                let problem = match error {
                    env::VarError::NotPresent => "is not set in the environment of this program",
                    env::VarError::NotUnicode(_) => "is not UTF-8",
                };
                CliError::Usage(format!("--secret-env: {name} {problem}"))
            })?,
            Some(path) => {
                let text = fs::read_to_string(&path);
                let text = text.map_err(|source| CliError::Local { path: path.display().to_string(), source })?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                line.strip_suffix('\r').unwrap_or(line).to_owned()
            }
        };
        if values.insert(name.clone(), value).is_some() {
            return Err(CliError::Usage(format!("--secret-env: {name} is given more than once")));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn values_on_the_command_line_are_refused() {
        for wrong in ["KEY=hunter2", "KEY=", "KEY=@", "", "=@file"] {
            let said = parse(wrong).unwrap_err();
            assert!(said.contains("expected NAME") && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn values_come_from_environment_or_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        fs::write(&file, "line\nhunter2\n").unwrap();
        let source = parse(&format!("KEY=@{}", file.display())).unwrap();
        let values = read(vec![source.clone(), parse("PATH").unwrap()]).unwrap();
        assert_eq!(values["KEY"], "line\nhunter2");
        assert_eq!(values["PATH"], env::var("PATH").unwrap());
        let said = read(vec![source.clone(), source]).unwrap_err().to_string();
        assert_eq!(said, "--secret-env: KEY is given more than once");
        let said = read(vec![parse("ERRAND_TEST_UNSET").unwrap()]).unwrap_err();
        assert_eq!((said.exit_code(), said.to_string().contains("is not set")), (64, true));
        assert!(read(vec![parse("K=@/does/not/exist").unwrap()]).unwrap_err().to_string().contains("/does/not/exist"));
    }
}
