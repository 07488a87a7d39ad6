//! The paths at which bubblewrap finds a sandbox's files, and the file system view that the launcher makes for bubblewrap.
//!
//! A sandbox with a host user of its own gets such a view, because its user cannot enter the server's directories. Without one, bubblewrap
//! sees the host's file system.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    disk::IMAGE,
    proto::{Bind, Copy, View},
    record::Record,
    root::{self, Root},
};

/// The directory of the sandbox's own files, when it has no disk image.
const FILES: &str = "files";
/// The directory of the files that are written for `/etc`.
const ETC: &str = "etc";
/// The directory of the sandbox's own files in the view.
const STAGE: &str = "/errand";
/// The file in which pasta finds the host's resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The image's name in [`STAGE`].
const STAGED_IMAGE: &str = "image";
/// The writable directories of a sandbox, with their permissions. They exist as long as the sandbox.
const WRITABLE: [(&str, u32); 2] = [("tmp", 0o1777), ("workspace", 0o755)];

/// The paths of a sandbox's files, as bubblewrap sees them.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) tmp: PathBuf,
    pub(super) workspace: PathBuf,
    /// The directory that becomes the sandbox's root. Not used when the root consists of the host's programs.
    pub(super) root: PathBuf,
    /// The directory of the files for `/etc`.
    pub(super) etc: PathBuf,
    /// The guest's program, which is the init.
    pub(super) guest: PathBuf,
    /// The view that the launcher makes; none when bubblewrap sees the host's file system.
    pub(super) view: Option<View>,
    /// The copy of the image that the launcher makes; none when the root is not writable.
    pub(super) copy: Option<Copy>,
}

/// The directory into which the server writes the files for `/etc`.
pub(super) fn etc_directory(directory: &Path) -> PathBuf {
    directory.join(ETC)
}

impl Layout {
    /// The layout of the sandbox in this directory. Makes the directories of its own files, unless the launcher will.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub(super) fn of(directory: &Path, record: &Record, guest: &Path) -> io::Result<Self> {
        let root = &record.root;
        let files = directory.join(FILES);
        if record.disk.is_none() {
            make(&files, 0o755)?;
        }
        if record.owner.is_none() {
            for (name, mode) in WRITABLE {
                make(&files.join(name), mode)?;
            }
            let image = root.directory().unwrap_or(Path::new("/"));
            return Ok(Self::new(&files, root, image, etc_directory(directory), guest.to_owned(), None));
        }
        let view = view(directory, record, guest, &files);
        let stage = Path::new(STAGE);
        let (etc, guest) = (stage.join(ETC), stage.join("init"));
        Ok(Self::new(&stage.join(FILES), root, &stage.join(STAGED_IMAGE), etc, guest, Some(view)))
    }

    /// The layout with the directory of the sandbox's own files and that of its image, both as bubblewrap sees them.
    fn new(files: &Path, root: &Root, image: &Path, etc: PathBuf, guest: PathBuf, view: Option<View>) -> Self {
        let copy = files.join("root");
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let request = root.is_writable().then(|| Copy { source: text(image), target: text(&copy) });
        Self {
            tmp: files.join("tmp"),
            workspace: files.join("workspace"),
            root: if request.is_some() { copy } else { image.to_owned() },
            etc,
            guest,
            view,
            copy: request,
        }
    }
}

/// The view of the file system in which bubblewrap assembles the sandbox. `files`: the directory of the sandbox's own files.
fn view(directory: &Path, record: &Record, guest: &Path, files: &Path) -> View {
    let stage = Path::new(STAGE);
    let mut binds = vec![
        // Not recursive: a container masks parts of `/proc` with mounts, and the kernel refuses a new `/proc` where such mounts are visible.
        bind(Path::new("/proc"), Path::new("/proc"), false),
        bind(Path::new("/dev"), Path::new("/dev"), true),
        bind(Path::new("/etc"), Path::new("/etc"), false),
        bind(&etc_directory(directory), &stage.join(ETC), false),
        bind(guest, &stage.join("init"), false),
    ];
    let mut links = HashMap::new();
    for (path, link) in root::host_programs() {
        match link {
            Some(target) => drop(links.insert(path.to_owned(), target)),
            None => binds.push(bind(Path::new(path), Path::new(path), true)),
        }
    }
    // If `/etc/resolv.conf` is a link, its target can be outside of the directories above.
    binds.extend(
        fs::canonicalize(RESOLV_CONF)
            .ok()
            .filter(|path| !path.starts_with("/etc"))
            .map(|path| bind(&path, &path, false)),
    );
    binds.extend(record.root.directory().map(|image| bind(image, &stage.join(STAGED_IMAGE), true)));
    let mut disk = String::new();
    match record.disk {
        Some(_) => disk = directory.join(IMAGE).to_string_lossy().into_owned(),
        None => binds.push(bind(files, &stage.join(FILES), false)),
    }
    let files = stage.join(FILES);
    let directories =
        WRITABLE.map(|(name, mode)| (files.join(name).to_string_lossy().into_owned(), mode)).into_iter().collect();
    let disk_target = files.to_string_lossy().into_owned();
    View { binds, links, disk, disk_target, directories, tun: false }
}

fn bind(source: &Path, target: &Path, recursive: bool) -> Bind {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Bind { source: text(source), target: text(target), recursive, optional: false }
}

/// Makes a directory with these permissions, whatever the umask. Leaves an existing one as it is.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
