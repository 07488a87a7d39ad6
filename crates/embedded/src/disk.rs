//! Makes the disk image of a sandbox: an ext4 file system in a sparse file.

use std::{
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The file of the disk image.
pub(super) const IMAGE: &str = "disk.img";
/// Where `mkfs.ext4` can be: the `PATH` of many users lacks its directory.
const MKFS: [&str; 3] = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"];
/// Options of `mkfs.ext4`: a small journal keeps the file system intact over a power loss, and no blocks are reserved for root, because no
/// process of a sandbox is root. Inode tables and journal are initialized later, so making a disk takes little time and space.
const OPTIONS: [&str; 7] =
    ["-q", "-F", "-m0", "-O^resize_inode", "-Elazy_itable_init=1,lazy_journal_init=1,nodiscard", "-Jsize=8", "-b4096"];

/// The path of `mkfs.ext4`; none when it is not installed or this process cannot mount disk images, which needs root and loop devices.
pub(super) fn mkfs() -> Option<PathBuf> {
    let possible = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    possible.then(|| MKFS.into_iter().map(PathBuf::from).find(|path| path.exists())).flatten()
}

/// Makes an empty disk image of `bytes` bytes. It occupies only the space that is written to it.
///
/// # Errors
/// The message of `mkfs.ext4`, or the error of the image's file.
pub(super) fn make(mkfs: &Path, directory: &Path, bytes: u64) -> io::Result<()> {
    let path = directory.join(IMAGE);
    File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?.set_len(bytes)?;
    let output = Command::new(mkfs)
        .args(OPTIONS)
        .arg(&path)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{}: {}", mkfs.display(), String::from_utf8_lossy(&output.stderr).trim())))
}
