//! Finds bubblewrap and reads its version.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Availability, programs,
    remedy::{Distribution, Program},
};

/// The oldest version with every option that the server passes.
const OLDEST: [u32; 3] = [0, 4, 0];
/// The first version with `--size`.
const WITH_SIZE: [u32; 3] = [0, 7, 0];

/// An installed bubblewrap that is new enough.
#[derive(Debug, Clone)]
pub(super) struct Bubblewrap {
    pub(super) path: PathBuf,
    version: [u32; 3],
}

impl Bubblewrap {
    /// Looks for bubblewrap. None when there is no usable one; the availability says why.
    pub(super) fn find(distribution: &Distribution) -> (Option<Self>, Availability) {
        let missing = |why: String| (None, Availability::missing(why, distribution.install(Program::Bubblewrap)));
        let Some(path) = programs::find("bwrap") else { return missing("bwrap is not installed".to_owned()) };
        match version(&path) {
            Some(version) if version >= OLDEST => {
                let [major, minor, patch] = version;
                let found = Availability::ok(format!("{major}.{minor}.{patch} at {}", path.display()));
                (Some(Self { path, version }), found)
            }
            Some([major, minor, _]) => {
                let [oldest, oldest_minor, _] = OLDEST;
                missing(format!("{} is {major}.{minor}; at least {oldest}.{oldest_minor} is needed", path.display()))
            }
            None => missing(format!("{} --version prints no version", path.display())),
        }
    }

    /// Whether this version can limit the size of a tmpfs.
    pub(super) fn limits_tmpfs(&self) -> bool {
        self.version >= WITH_SIZE
    }
}

fn version(path: &Path) -> Option<[u32; 3]> {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// The numbers of `bubblewrap 0.8.0`. A missing third number is 0.
fn parse_version(output: &str) -> Option<[u32; 3]> {
    let mut numbers = output.trim().strip_prefix("bubblewrap ")?.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next()??, numbers.next().unwrap_or(Some(0))?];
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_versions_are_rejected() {
        assert_eq!(parse_version("bubblewrap 0.8.0\n"), Some([0, 8, 0]));
        assert_eq!(parse_version("bubblewrap 1.2"), Some([1, 2, 0]));
        for output in ["", "bubblewrap", "bubblewrap x.y.z", "something 0.8.0", "bubblewrap 0"] {
            assert_eq!(parse_version(output), None, "{output:?}");
        }
        assert!([0, 11, 0] > OLDEST);
    }
}
