//! Files of `/etc` that are written for a sandbox: who is who inside, and how names are resolved.

use std::{fs, io, path::Path};

use super::{UID, USER};

/// The files, in the order of their names.
pub(crate) const NAMES: [&str; 6] = ["group", "hostname", "hosts", "nsswitch.conf", "passwd", "resolv.conf"];
/// Where the users and groups of a machine's programs are taken from; those of people are not.
const SYSTEM: [(&str, u32); 2] = [("root", 0), ("nobody", 65534)];

/// Users and groups inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Etc {
    passwd: String,
    group: String,
}

impl Etc {
    /// Those where the programs are this machine's.
    pub(super) fn of_host() -> Self {
        let mut etc = Self { passwd: String::new(), group: String::new() };
        for (name, number) in SYSTEM {
            etc.passwd.push_str(&format!("{name}:x:{number}:{number}:{name}:/:/bin/sh\n"));
            etc.group.push_str(&format!("{}:x:{number}:\n", if number == 65534 { "nogroup" } else { name }));
        }
        etc.add(UID, UID);
        etc
    }

    /// Those of an image, as its own files say.
    pub(super) fn of_image(passwd: String, group: String) -> Self {
        let whole = |text: String| if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" };
        let mut etc = Self { passwd: whole(passwd), group: whole(group) };
        etc.add(UID, UID);
        etc
    }

    /// Lists a user and a group by their numbers, if they are not. They are called after the sandbox's user, whoever that is.
    pub(crate) fn add(&mut self, uid: u32, gid: u32) {
        let name = if uid == UID { USER.to_owned() } else { format!("{USER}-{uid}") };
        if !has_number(&self.passwd, uid) {
            self.passwd.push_str(&format!("{name}:x:{uid}:{gid}::/workspace:/bin/sh\n"));
        }
        let name = if gid == UID { USER.to_owned() } else { format!("{USER}-{gid}") };
        if !has_number(&self.group, gid) {
            self.group.push_str(&format!("{name}:x:{gid}:\n"));
        }
    }

    /// The numbers of `USER[:GROUP]`, each a name or a number; none when a name is not listed.
    pub(crate) fn find(&self, wanted: &str) -> Option<(u32, u32)> {
        let found = errand_task::passwd::find(wanted, &self.passwd, &self.group)?;
        Some((found.uid, found.gid))
    }

    /// Writes all files into a directory. `resolver`: the content of `resolv.conf`.
    pub(crate) fn write(&self, directory: &Path, hostname: &str, resolver: &str) -> io::Result<()> {
        let hosts = format!("127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost ip6-loopback\n");
        let hostname = format!("{hostname}\n");
        let lookups = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n";
        let contents: [&str; NAMES.len()] = [&self.group, &hostname, &hosts, lookups, &self.passwd, resolver];
        for (name, content) in NAMES.into_iter().zip(contents) {
            fs::write(directory.join(name), content)?;
        }
        Ok(())
    }
}

fn has_number(listed: &str, number: u32) -> bool {
    listed.lines().any(|line| line.split(':').nth(2) == Some(&number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
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
    fn whoever_is_not_listed_is_added_once() {
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
