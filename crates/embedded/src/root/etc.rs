//! The files of `/etc` that are written for each sandbox: its users and groups, its host name, and how it resolves names.

use std::{fs, io, path::Path};

use super::{UID, USER};

/// The names of the files, in alphabetical order.
pub(crate) const NAMES: [&str; 6] = ["group", "hostname", "hosts", "nsswitch.conf", "passwd", "resolv.conf"];
/// The users that exist inside when the root consists of the host's programs. The host's own users do not.
const SYSTEM: [(&str, u32); 2] = [("root", 0), ("nobody", 65534)];

/// The users and groups of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Etc {
    passwd: String,
    group: String,
}

impl Etc {
    /// The users and groups for a root of the host's programs.
    pub(super) fn of_host() -> Self {
        let mut etc = Self { passwd: String::new(), group: String::new() };
        for (name, number) in SYSTEM {
            etc.passwd.push_str(&format!("{name}:x:{number}:{number}:{name}:/:/bin/sh\n"));
            etc.group.push_str(&format!("{}:x:{number}:\n", if number == 65534 { "nogroup" } else { name }));
        }
        etc.add(UID, UID);
        etc
    }

    /// The users and groups of an image, from its own files.
    pub(super) fn of_image(passwd: String, group: String) -> Self {
        let terminated = |text: String| if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" };
        let mut etc = Self { passwd: terminated(passwd), group: terminated(group) };
        etc.add(UID, UID);
        etc
    }

    /// Adds a user and a group with these ids, unless they exist. Their names begin with that of the sandbox's usual user.
    pub(crate) fn add(&mut self, uid: u32, gid: u32) {
        let name = if uid == UID { USER.to_owned() } else { format!("{USER}-{uid}") };
        if !has_id(&self.passwd, uid) {
            self.passwd.push_str(&format!("{name}:x:{uid}:{gid}::/workspace:/bin/sh\n"));
        }
        let name = if gid == UID { USER.to_owned() } else { format!("{USER}-{gid}") };
        if !has_id(&self.group, gid) {
            self.group.push_str(&format!("{name}:x:{gid}:\n"));
        }
    }

    /// The user id and group id of `USER[:GROUP]`, where each is a name or an id; none when a name does not exist.
    pub(crate) fn find(&self, wanted: &str) -> Option<(u32, u32)> {
        let found = errand_task::passwd::find(wanted, &self.passwd, &self.group)?;
        Some((found.uid, found.gid))
    }

    /// Writes all files into a directory.
    pub(crate) fn write(&self, directory: &Path, hostname: &str, resolv_conf: &str) -> io::Result<()> {
        let hosts = format!("127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost ip6-loopback\n");
        let hostname = format!("{hostname}\n");
        let lookups = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n";
        let contents: [&str; NAMES.len()] = [&self.group, &hostname, &hosts, lookups, &self.passwd, resolv_conf];
        for (name, content) in NAMES.into_iter().zip(contents) {
            fs::write(directory.join(name), content)?;
        }
        Ok(())
    }
}

/// Whether the text of a `passwd` or `group` file has a line with this id.
fn has_id(text: &str, id: u32) -> bool {
    text.lines().any(|line| line.split(':').nth(2) == Some(&id.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_id() {
        let etc = Etc::of_host();
        for (wanted, found) in [
            ("errand", Some((1000, 1000))),
            ("root", Some((0, 0))),
            ("0", Some((0, 0))),
            ("4711", Some((4711, 0))),
            ("4711:12", Some((4711, 12))),
            ("errand:nogroup", Some((1000, 65534))),
            ("nobody", Some((65534, 65534))),
            ("joe", None),
            ("errand:wheel", None),
            ("", None),
            (":", None),
            ("4294967295", None),
        ] {
            assert_eq!(etc.find(wanted), found, "{wanted:?}");
        }
    }

    #[test]
    fn missing_users_and_groups_are_added_once() {
        let mut etc = Etc::of_host();
        let before = etc.clone();
        etc.add(1000, 0);
        assert_eq!(etc, before);
        etc.add(4711, 12);
        etc.add(4711, 12);
        assert_eq!(etc.passwd.matches("errand-4711:x:4711:12:").count(), 1);
        assert_eq!(etc.group.matches("errand-12:x:12:").count(), 1);
    }
}
