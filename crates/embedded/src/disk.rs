//! Making the disk of a sandbox.

use std::{
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The image of the disk.
pub(super) const IMAGE: &str = "disk.img";
/// Where the program is that makes file systems. Not every user's search path has it.
const MAKERS: [&str; 3] = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"];
/// What it is told. A small journal, so that the disk is whole after the machine lost its power; no room for root, which a sandbox has no
/// use for. Tables and journal are written when they are needed: making it takes no time and no space.
const OPTIONS: [&str; 7] =
    ["-q", "-F", "-m0", "-O^resize_inode", "-Elazy_itable_init=1,lazy_journal_init=1,nodiscard", "-Jsize=8", "-b4096"];

/// The program that makes disks, if this process can have them at all: as root, and with loop devices.
pub(super) fn maker() -> Option<PathBuf> {
    let possible = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    possible.then(|| MAKERS.into_iter().map(PathBuf::from).find(|path| path.exists())).flatten()
}

/// Makes an empty disk of that many bytes, which takes no space before something is written to it.
pub(super) fn make(maker: &Path, directory: &Path, bytes: u64) -> io::Result<()> {
    let path = directory.join(IMAGE);
    File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?.set_len(bytes)?;
    let made = Command::new(maker)
        .args(OPTIONS)
        .arg(&path)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if made.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{}: {}", maker.display(), String::from_utf8_lossy(&made.stderr).trim())))
}
