//! How to fix a missing capability, with the commands of the host's distribution.

use std::fs;

/// For a `/proc` that the kernel refuses to mount again.
pub(super) const MASKED_PROC: &str =
    "run this container with an unmasked /proc: docker run --security-opt systempaths=unconfined";
/// For a kernel that refuses filters of system calls.
pub(super) const NO_FILTER: &str = "use a kernel with CONFIG_SECCOMP_FILTER";

/// A program that can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// `bwrap`.
    Bubblewrap,
    /// `mkfs.ext4`.
    Mkfs,
    /// `pasta`.
    Pasta,
}

impl Program {
    /// The package that contains it, which has the same name in every distribution.
    fn package(self) -> &'static str {
        match self {
            Self::Bubblewrap => "bubblewrap",
            Self::Mkfs => "e2fsprogs",
            Self::Pasta => "passt",
        }
    }
}

/// The package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackageManager {
    Apt,
    Dnf,
    Apk,
    Pacman,
    Zypper,
    Unknown,
}

/// What commands depend on: the distribution's package manager, and whether this process runs as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Distribution {
    packages: PackageManager,
    root: bool,
}

impl Distribution {
    /// The distribution of the host, or of the container around this process.
    pub(super) fn detect() -> Self {
        let texts = ["/etc/os-release", "/usr/lib/os-release"].map(fs::read_to_string);
        let text = texts.into_iter().flatten().next().unwrap_or_default();
        Self::parse(&text, rustix::process::geteuid().is_root())
    }

    /// The distribution that the text of an `os-release` file describes.
    pub(super) fn parse(os_release: &str, root: bool) -> Self {
        let value = |key: &str| {
            let found = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        let like = format!("{} {}", value("ID"), value("ID_LIKE"));
        let packages = like.split_whitespace().find_map(|name| match name {
            "debian" | "ubuntu" => Some(PackageManager::Apt),
            "fedora" | "rhel" | "centos" => Some(PackageManager::Dnf),
            "alpine" => Some(PackageManager::Apk),
            "arch" => Some(PackageManager::Pacman),
            "suse" | "opensuse" => Some(PackageManager::Zypper),
            _ => None,
        });
        Self { packages: packages.unwrap_or(PackageManager::Unknown), root }
    }

    /// A command to be run as root: with `sudo` when this process is not root.
    pub(super) fn as_root(&self, command: &str) -> String {
        if self.root { command.to_owned() } else { format!("sudo {command}") }
    }

    /// The command that installs a program.
    pub(super) fn install(&self, program: Program) -> String {
        let package = program.package();
        let command = match self.packages {
            PackageManager::Apt => "apt-get install -y",
            PackageManager::Dnf => "dnf install -y",
            PackageManager::Apk => "apk add",
            PackageManager::Pacman => "pacman -S --noconfirm",
            PackageManager::Zypper => "zypper install -y",
            PackageManager::Unknown => return format!("install the package {package}"),
        };
        self.as_root(&format!("{command} {package}"))
    }
}

/// How to let ordinary users make namespaces.
pub(super) fn namespaces(distribution: &Distribution) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    namespaces_switch(
        distribution,
        read("user/max_user_namespaces").trim(),
        read("kernel/unprivileged_userns_clone").trim(),
        read("kernel/apparmor_restrict_unprivileged_userns").trim(),
    )
}

/// The same for given values of the three kernel settings that can forbid it. A setting that the kernel lacks is the empty text.
pub(super) fn namespaces_switch(distribution: &Distribution, most: &str, unprivileged: &str, apparmor: &str) -> String {
    if most == "0" {
        distribution.as_root("sysctl -w user.max_user_namespaces=15000")
    } else if unprivileged == "0" {
        distribution.as_root("sysctl -w kernel.unprivileged_userns_clone=1")
    } else if apparmor == "1" {
        distribution.as_root("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
    } else {
        // The kernel allows it, so the container around this process forbids it.
        "run this container with: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
            .to_owned()
    }
}
