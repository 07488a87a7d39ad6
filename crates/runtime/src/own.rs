//! Finds out which container this server itself runs in, if any.
//!
//! A caller that could run commands in that container would hold the engine's socket and the database. The server needs no setting for it:
//! the kernel shows the container's id in its mounts and its cgroup, and the default host name is the beginning of the id.

use std::{fs, sync::OnceLock};

/// The length of a container's id, in hexadecimal digits.
const ID: usize = 64;
/// The length of the part of the id that is the default host name.
const SHORT: usize = 12;

/// True for the container that this process runs in.
pub fn is_of_this_process(id: &str) -> bool {
    static OWN: OnceLock<Own> = OnceLock::new();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let own = OWN.get_or_init(|| {
        Own::of(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"), &read("/proc/sys/kernel/hostname"))
    });
    own.is(id)
}

/// What a process can find out about its own container.
#[derive(Debug)]
struct Own {
    ids: Vec<String>,
    hostname: Option<String>,
}

impl Own {
    /// The engine mounts a container's host name and resolver settings from a directory named after the container's id. The ids of other
    /// containers do not appear there.
    fn of(mounts: &str, cgroup: &str, hostname: &str) -> Self {
        let mounted = mounts.lines().filter(|line| {
            let place = line.split(' ').nth(4);
            matches!(place, Some("/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf"))
        });
        let ids = mounted.chain(cgroup.lines()).flat_map(ids).map(str::to_owned).collect();
        let hostname = hostname.trim();
        let is_short_id = hostname.len() == SHORT && hostname.bytes().all(is_digit);
        Self { ids, hostname: is_short_id.then(|| hostname.to_owned()) }
    }

    fn is(&self, id: &str) -> bool {
        self.ids.iter().any(|own| own == id) || self.hostname.as_ref().is_some_and(|own| id.starts_with(own.as_str()))
    }
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// The ids of containers in a text.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| word.len() == ID && word.bytes().all(is_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_container_is_recognised_by_each_trace() {
        let id = "0123456789abcdef".repeat(4);
        let other = "fedcba9876543210".repeat(4);
        let mounts = format!(
            "700 600 254:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw\n\
             701 600 254:1 /var/lib/docker/containers/{other}/x /var/lib/docker/containers/{other}/x rw - ext4 /dev/vda1 rw"
        );
        let cgroup = format!("0::/system.slice/docker-{id}.scope");
        for own in [Own::of(&mounts, "0::/", "web"), Own::of("", &cgroup, "web"), Own::of("", "", &id[..12])] {
            assert!(own.is(&id), "{own:?}");
            assert!(!own.is(&other), "{own:?}");
        }
    }

    #[test]
    fn no_container_is_own_outside_of_containers() {
        let own = Own::of("22 1 254:1 / / rw - ext4 /dev/vda1 rw", "0::/user.slice/session-1.scope", "laptop\n");
        assert!(!own.is(&"0".repeat(64)), "{own:?}");
    }
}
