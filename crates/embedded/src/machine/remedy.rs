//! The one thing to do about what is missing, in the words of this machine's distribution.

use std::fs;

/// For a `/proc` that cannot be mounted afresh.
pub(super) const MASKED_PROC: &str =
    "run this container with an unmasked /proc: docker run --security-opt systempaths=unconfined";
/// For a kernel without filters.
pub(super) const NO_FILTER: &str = "use a kernel with CONFIG_SECCOMP_FILTER";

/// Something to be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// bwrap.
    Bubblewrap,
    /// mkfs.ext4.
    Mkfs,
    /// pasta.
    Pasta,
}

impl Program {
    /// The package that brings it: the same name everywhere.
    fn package(self) -> &'static str {
        match self {
            Self::Bubblewrap => "bubblewrap",
            Self::Mkfs => "e2fsprogs",
            Self::Pasta => "passt",
        }
    }
}

/// How packages are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packages {
    Apt,
    Dnf,
    Apk,
    Pacman,
    Zypper,
    Unknown,
}

/// The distribution, as far as commands depend on it, and whether this process is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Distribution {
    packages: Packages,
    root: bool,
}

impl Distribution {
    /// The one that this process runs on.
    pub(super) fn here() -> Self {
        let texts = ["/etc/os-release", "/usr/lib/os-release"].map(fs::read_to_string);
        let text = texts.into_iter().flatten().next().unwrap_or_default();
        Self::of(&text, rustix::process::geteuid().is_root())
    }

    /// The one that this text, an `os-release`, describes.
    pub(super) fn of(os_release: &str, root: bool) -> Self {
        let value = |key: &str| {
            let found = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        let like = format!("{} {}", value("ID"), value("ID_LIKE"));
        let packages = like.split_whitespace().find_map(|name| match name {
            "debian" | "ubuntu" => Some(Packages::Apt),
            "fedora" | "rhel" | "centos" => Some(Packages::Dnf),
            "alpine" => Some(Packages::Apk),
            "arch" => Some(Packages::Pacman),
            "suse" | "opensuse" => Some(Packages::Zypper),
            _ => None,
        });
        Self { packages: packages.unwrap_or(Packages::Unknown), root }
    }

    /// A command that root has to run.
    pub(super) fn as_root(&self, command: &str) -> String {
        if self.root { command.to_owned() } else { format!("sudo {command}") }
    }

    /// The command that installs a program.
    pub(super) fn install(&self, program: Program) -> String {
        let package = program.package();
        let command = match self.packages {
            Packages::Apt => "apt-get install -y",
            Packages::Dnf => "dnf install -y",
            Packages::Apk => "apk add",
            Packages::Pacman => "pacman -S --noconfirm",
            Packages::Zypper => "zypper install -y",
            Packages::Unknown => return format!("install the package {package}"),
        };
        self.as_root(&format!("{command} {package}"))
    }
}

/// What to switch on, so that ordinary users can make namespaces.
pub(super) fn namespaces(here: &Distribution) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    switch(
        here,
        read("user/max_user_namespaces").trim(),
        read("kernel/unprivileged_userns_clone").trim(),
        read("kernel/apparmor_restrict_unprivileged_userns").trim(),
    )
}

/// The same, by the values of the three switches, each empty where the kernel has none of that name.
pub(super) fn switch(here: &Distribution, most: &str, unprivileged: &str, apparmor: &str) -> String {
    if most == "0" {
        here.as_root("sysctl -w user.max_user_namespaces=15000")
    } else if unprivileged == "0" {
        here.as_root("sysctl -w kernel.unprivileged_userns_clone=1")
    } else if apparmor == "1" {
        here.as_root("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
    } else {
        // No switch is off, so that it is a container around this process that forbids it.
        "run this container with: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
            .to_owned()
    }
}
