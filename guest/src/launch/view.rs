//! Builds the file system view of one sandbox: an empty root with the directories that the sandbox consists of.
//!
//! Mounts made here are invisible outside and disappear with the sandbox. No other mount of the machine is kept, so none is kept busy. A
//! source that the sandbox's own user cannot reach, because it lies below one of the server's directories, is bound to a place that the
//! user can reach.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fstat, open},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
    },
};

use super::{Tried as _, Trouble, disk::Disk};
use errand_proto::init::{Bind, Owner, View};

/// Where the new root is assembled: a directory that exists on every machine. Its own content is still reachable through descriptors.
const PLACE: &str = "/tmp";

/// Builds the view and enters it permanently.
pub(super) fn enter(view: &View, owner: Option<&Owner>) -> Result<(), Trouble> {
    let disk = (!view.disk.is_empty()).then(|| Disk::attach(Path::new(&view.disk))).transpose()?;
    leave_the_others()?;
    // A process can only clone mounts of its own mount namespace.
    let sources = view.binds.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let root = Path::new(PLACE);
    mount(c"tmpfs", root, c"tmpfs", MountFlags::NOSUID, c"mode=0755,size=1m").tried(|| "a new root".to_owned())?;
    for (bind, source) in view.binds.iter().zip(&sources) {
        if let Some(source) = source {
            put(root, bind, source)?;
        }
    }
    if let (true, Some(owner)) = (view.tun, owner) {
        give_tun(root, owner)?;
    }
    for (path, target) in &view.links {
        let path = below(root, path);
        parents(&path)?;
        symlink(target, &path).tried(|| format!("the link {}", path.display()))?;
    }
    if let Some(disk) = disk {
        let target = below(root, &view.disk_target);
        directory(&target, 0o755)?;
        disk.mount(&target)?;
    }
    // Bubblewrap assembles its own root there.
    directory(&root.join("tmp"), 0o755)?;
    for (path, mode) in &view.directories {
        own_directory(&below(root, path), *mode, owner)?;
    }
    go_in(root).tried(|| "entering the new root".to_owned())
}

/// Makes a mount namespace of its own: from now on, mounts made here appear nowhere else.
fn leave_the_others() -> Result<(), Trouble> {
    // SAFETY: this process has one thread, and nothing in it relies on which mounts it shares.
    #[allow(unsafe_code)]
    let left = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
    left.tried(|| "mounts of its own".to_owned())?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).tried(|| "mounts of its own".to_owned())
}

/// Opens the source of a bind before a mount covers it; none when the source is missing and may be.
fn find(bind: &Bind) -> Result<Option<OwnedFd>, Trouble> {
    match open(&*bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(source) => Ok(Some(source)),
        Err(Errno::NOENT) if bind.optional => Ok(None),
        Err(errno) => Err(errno).tried(|| bind.source.clone()),
    }
}

fn put(root: &Path, bind: &Bind, source: &OwnedFd) -> Result<(), Trouble> {
    let target = below(root, &bind.target);
    let stat = fstat(source).tried(|| bind.source.clone())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        directory(&target, 0o755)?;
    } else {
        parents(&target)?;
        File::create(&target).tried(|| target.display().to_string())?;
    }
    let from = format!("/proc/self/fd/{}", source.as_raw_fd());
    let bound = if bind.recursive { mount_bind_recursive(from, &target) } else { mount_bind(from, &target) };
    bound.tried(|| format!("binding {}", bind.source))
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn parents(path: &Path) -> Result<(), Trouble> {
    path.parent().map_or(Ok(()), |parent| directory(parent, 0o755))
}

fn directory(path: &Path, mode: u32) -> Result<(), Trouble> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).tried(|| path.display().to_string())
}

/// Makes a directory for the owner. An existing directory stays as it is: its content is the sandbox's.
fn own_directory(path: &Path, mode: u32, owner: Option<&Owner>) -> Result<(), Trouble> {
    let make = || -> io::Result<()> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        if let Some(owner) = owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::chownat(CWD, path, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        }
        // Done after the change of owner, which clears some permission bits; chmod ignores the umask.
        Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
    };
    make().tried(|| path.display().to_string())
}

/// Lets the owner create network devices, which a machine may reserve for root. The owner can do so only in its own networks.
fn give_tun(root: &Path, owner: &Owner) -> Result<(), Trouble> {
    let give = || -> Result<(), Errno> {
        let (node, there) = (root.join("tun"), root.join("dev/net/tun"));
        let number = rustix::fs::stat(&there)?.st_rdev;
        rustix::fs::mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o600), number)?;
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(CWD, &node, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        mount_bind(&node, &there)
    };
    match give() {
        // A container may forbid the change, and its device may be open to every user already.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).tried(|| "/dev/net/tun".to_owned()),
    }
}

/// Makes this directory the root, and detaches the old root.
fn go_in(root: &Path) -> Result<(), Errno> {
    rustix::process::chdir(root)?;
    // With both arguments equal, the old root is mounted over the new one, and is then unmounted.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}
