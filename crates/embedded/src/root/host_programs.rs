//! A root that consists of the host's programs, read-only. It shows files of the operating system and none of the host's users.

use std::{fs, path::Path};

/// The directories of programs and libraries.
const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What programs read in `/etc`. None of it contains secrets: a directory with private keys, for example, is not listed.
const ETC: [&str; 33] = [
    "ImageMagick-6",
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "lsb-release",
    "magic",
    "mailcap",
    "mime.types",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "profile",
    "profile.d",
    "protocols",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];
/// Prefixes of directories in `/etc` that belong to languages; a version follows, as in `java-17-openjdk`.
const LANGUAGES: [&str; 3] = ["java", "python", "ruby"];

/// The existing directories of programs. A directory that is a symbolic link comes with its target.
pub(crate) fn directories() -> Vec<(&'static str, Option<String>)> {
    let existing = |path: &'static str| {
        let metadata = fs::symlink_metadata(path).ok()?;
        if metadata.is_symlink() {
            return Some((path, Some(fs::read_link(path).ok()?.to_str()?.to_owned())));
        }
        metadata.is_dir().then_some((path, None))
    };
    PROGRAMS.into_iter().filter_map(existing).collect()
}

/// Bubblewrap's arguments for this root, without the mounts that every sandbox has.
pub(super) fn arguments(etc: &Path) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    for (path, link) in directories() {
        match link {
            Some(target) => add(&["--symlink", &target, path]),
            None => add(&["--ro-bind", path, path]),
        }
    }
    for path in shown_etc() {
        add(&["--ro-bind", &path, &path]);
    }
    for name in super::etc::NAMES {
        add(&["--ro-bind", &etc.join(name).to_string_lossy(), &format!("/etc/{name}")]);
    }
    arguments
}

/// The existing paths of `/etc` that sandboxes see.
fn shown_etc() -> Vec<String> {
    let of_languages = fs::read_dir("/etc").into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let directory = entry.file_type().ok()?.is_dir();
        (directory && LANGUAGES.iter().any(|language| name.starts_with(language))).then_some(name)
    });
    let mut paths: Vec<String> =
        ETC.into_iter().map(str::to_owned).chain(of_languages).map(|name| format!("/etc/{name}")).collect();
    paths.sort();
    paths.retain(|path| fs::metadata(path).is_ok());
    paths
}
