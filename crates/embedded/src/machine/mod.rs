//! What this machine offers for sandboxes of its own, what is missing, and the one thing to do about each. Looked at, and where looking
//! does not tell, tried. Everything here blocks for as long as a few processes take.

mod groups;
mod remedy;
#[cfg(test)]
mod tests;
mod trial;

use std::{
    env,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::Access;

use super::cgroup::{Cgroups, Resource};
use remedy::{Distribution, Program};
use trial::{Hurdle, Trial};

/// Directories beyond `PATH` in which programs are looked for: a server started by hand often lacks those of root.
const USUAL: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// One thing that sandboxes, or one of their limits, depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name, for people and programs, such as `user-namespaces`.
    pub name: &'static str,
    /// What was found.
    pub verdict: Verdict,
}

/// What was found about one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is there.
    Ok {
        /// Which one, or where.
        detail: String,
    },
    /// Sandboxes can be made without it, and something does not hold in them.
    Degraded {
        /// What, and why.
        why: String,
        /// The one thing to do about it.
        remedy: String,
    },
    /// Without it there are no sandboxes.
    Missing {
        /// What is missing, and why.
        why: String,
        /// The one thing to do about it.
        remedy: String,
    },
}

impl Verdict {
    fn ok(detail: impl Into<String>) -> Self {
        Self::Ok { detail: detail.into() }
    }

    fn missing(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Missing { why: why.into(), remedy: remedy.into() }
    }

    fn degraded(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Degraded { why: why.into(), remedy: remedy.into() }
    }
}

/// What a machine offers.
#[derive(Debug, Clone)]
pub struct Machine {
    parts: Vec<Part>,
    bwrap: Option<(PathBuf, [u32; 3])>,
    pasta: Option<PathBuf>,
}

impl Machine {
    /// Looks at this machine, as the user that this process is.
    pub fn look() -> Self {
        let here = Distribution::here();
        let (bwrap, found) = bubblewrap(&here);
        let mut parts = vec![Part { name: "bubblewrap", verdict: found }];
        match &bwrap {
            Some((bwrap, _)) => parts.extend(kernel(&Trial::new(bwrap), &here)),
            None => parts.extend(["user-namespaces", "proc", "seccomp"].map(|name| {
                let verdict = Verdict::missing("cannot be tried without bubblewrap", here.install(Program::Bubblewrap));
                Part { name, verdict }
            })),
        }
        let cgroups = Cgroups::detect();
        for (name, resource) in
            [("memory-limit", Resource::Memory), ("cpu-limit", Resource::Cpu), ("pids-limit", Resource::Pids)]
        {
            parts.push(Part { name, verdict: groups::verdict(&cgroups, resource, &here) });
        }
        parts.push(Part { name: "disk-limit", verdict: disk(&here) });
        let pasta = program("pasta");
        parts.push(Part { name: "network", verdict: network(pasta.as_deref(), &here) });
        Self { parts, bwrap, pasta }
    }

    /// Everything that was looked at.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The first part without which there are no sandboxes; none when they can be made.
    pub fn missing(&self) -> Option<&Part> {
        self.parts.iter().find(|part| matches!(part.verdict, Verdict::Missing { .. }))
    }

    /// bubblewrap, if it is there.
    pub fn bwrap(&self) -> Option<&Path> {
        self.bwrap.as_ref().map(|(path, _)| path.as_path())
    }

    /// Whether this bubblewrap can limit what a file system in memory holds.
    pub(super) fn limits_memory_files(&self) -> bool {
        self.bwrap.as_ref().is_some_and(|(_, version)| *version >= trial::SIZES)
    }

    /// Where a program is that sandboxes are made with.
    pub(super) fn program(name: &str) -> Option<PathBuf> {
        program(name)
    }

    /// Whether a sandbox can reach the network and nothing of this machine.
    pub fn has_network(&self) -> bool {
        self.pasta.is_some() && may_use_tun()
    }
}

fn bubblewrap(here: &Distribution) -> (Option<(PathBuf, [u32; 3])>, Verdict) {
    let install = || here.install(Program::Bubblewrap);
    let Some(path) = program("bwrap") else {
        return (None, Verdict::missing("bwrap is not installed", install()));
    };
    match trial::version(&path) {
        Some(version) if version >= trial::LEAST => {
            let [major, minor, patch] = version;
            let found = Verdict::ok(format!("{major}.{minor}.{patch} at {}", path.display()));
            (Some((path, version)), found)
        }
        Some([major, minor, _]) => {
            let [least, least_minor, _] = trial::LEAST;
            let why = format!("{} is {major}.{minor}, and at least {least}.{least_minor} is needed", path.display());
            (None, Verdict::missing(why, install()))
        }
        None => {
            let why = format!("{} does not say its version", path.display());
            (None, Verdict::missing(why, install()))
        }
    }
}

/// What the kernel, or whatever this process runs in, lets bubblewrap do. Tried all at once, and one by one only to find out which fails.
fn kernel(trial: &Trial<'_>, here: &Distribution) -> Vec<Part> {
    let told = |name, hurdles: &[Hurdle], fine: &str, why: &str, remedy: &dyn Fn() -> String| {
        let verdict = match trial.run(hurdles) {
            Ok(()) => Verdict::ok(fine),
            Err(said) => Verdict::missing(format!("{why}: {said}"), remedy()),
        };
        Part { name, verdict }
    };
    let fine = ["can be made", "can be mounted afresh", "filters are taken"];
    let names = ["user-namespaces", "proc", "seccomp"];
    if trial.run(&[Hurdle::Proc, Hurdle::Filter]).is_ok() {
        return names.into_iter().zip(fine).map(|(name, fine)| Part { name, verdict: Verdict::ok(fine) }).collect();
    }
    let first = told(names[0], &[], fine[0], "this kernel makes none for ordinary users", &|| remedy::namespaces(here));
    if matches!(first.verdict, Verdict::Missing { .. }) {
        let rest = [names[1], names[2]].map(|name| Part {
            name,
            verdict: Verdict::missing("cannot be tried without user namespaces", remedy::namespaces(here)),
        });
        return [first].into_iter().chain(rest).collect();
    }
    let proc = "/proc of this machine is masked, as in a container, so that no fresh one can be mounted";
    let filter = "this kernel takes no filter of system calls";
    vec![
        first,
        told(names[1], &[Hurdle::Proc], fine[1], proc, &|| remedy::MASKED_PROC.to_owned()),
        told(names[2], &[Hurdle::Filter], fine[2], filter, &|| remedy::NO_FILTER.to_owned()),
    ]
}

/// Whether a sandbox can have a disk of its own, and be kept from filling the machine's.
fn disk(here: &Distribution) -> Verdict {
    const WHY: &str = "a sandbox is limited in the size of each file, not in their sum";
    if !rustix::process::geteuid().is_root() {
        return Verdict::degraded(format!("{WHY}: disks of their own take root"), "run the server as root");
    }
    if program("mkfs.ext4").is_none() {
        return Verdict::degraded(format!("{WHY}: mkfs.ext4 is not installed"), here.install(Program::Mkfs));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Verdict::degraded(format!("{WHY}: there are no loop devices"), here.as_root("modprobe loop"));
    }
    Verdict::ok("a disk image for each sandbox")
}

/// What makes a network for a process that is not root.
pub(super) const TUN: &str = "/dev/net/tun";

/// Whether this user may make the end of a network with it. Root can give it to the user that a sandbox has.
pub(super) fn may_use_tun() -> bool {
    rustix::fs::access(TUN, Access::READ_OK | Access::WRITE_OK).is_ok()
}

fn network(pasta: Option<&Path>, here: &Distribution) -> Verdict {
    const WHY: &str = "sandboxes have no network (network mode none)";
    match pasta {
        Some(_) if !Path::new(TUN).exists() => {
            Verdict::degraded(format!("{WHY}: there is no {TUN}"), here.as_root("modprobe tun"))
        }
        Some(_) if !may_use_tun() => {
            Verdict::degraded(format!("{WHY}: this user may not use {TUN}"), here.as_root("chmod 666 /dev/net/tun"))
        }
        Some(path) => Verdict::ok(format!("pasta at {}", path.display())),
        None => Verdict::degraded(format!("{WHY}: pasta is not installed"), here.install(Program::Pasta)),
    }
}

/// Where a program is.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = env::split_paths(&path).chain(USUAL.map(PathBuf::from)).collect();
    directories
        .into_iter()
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
}
