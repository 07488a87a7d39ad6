//! A view of the file system for one sandbox: an empty root with what the sandbox is made of.
//!
//! Mounts made here are seen by nobody else and go with the sandbox. Nothing else of the machine's mounts is kept, or kept busy. What the
//! sandbox's own user could not come to, because it lies below a directory of the server's, is bound where it can.

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

/// Where the new root is put together: a directory that every machine has. What is in it is seen through descriptors.
const PLACE: &str = "/tmp";

/// Makes the view and goes in for good.
pub(super) fn enter(view: &View, owner: Option<&Owner>) -> Result<(), Trouble> {
    let disk = (!view.disk.is_empty()).then(|| Disk::attach(Path::new(&view.disk))).transpose()?;
    leave_the_others()?;
    // Only of mounts of its own can a process make others.
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
    // There bubblewrap puts its own root together.
    directory(&root.join("tmp"), 0o755)?;
    for (path, mode) in &view.directories {
        own_directory(&below(root, path), *mode, owner)?;
    }
    go_in(root).tried(|| "entering the new root".to_owned())
}

/// From now on, what is mounted here is mounted nowhere else.
fn leave_the_others() -> Result<(), Trouble> {
    // SAFETY: this process has one thread, and nothing in it relies on whose mounts it sees.
    #[allow(unsafe_code)]
    let left = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
    left.tried(|| "mounts of its own".to_owned())?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).tried(|| "mounts of its own".to_owned())
}

/// The source of a bind, before anything covers it; none when it may be missing and is.
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

/// Makes a directory of the owner's. One that is there is left as it is: what is in it is the sandbox's.
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
        // After the change of the owner, which takes some permissions away; and past the mask.
        Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
    };
    make().tried(|| path.display().to_string())
}

/// Lets the owner make network devices, which a machine may keep to root. It can do so in networks of its own only.
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
        // A container may forbid it, and its device may be open to everybody.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).tried(|| "/dev/net/tun".to_owned()),
    }
}

/// Makes it the root, and lets go of the old one.
fn go_in(root: &Path) -> Result<(), Errno> {
    rustix::process::chdir(root)?;
    // Both on one place: the old root lies over the new one, and is taken off.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}
