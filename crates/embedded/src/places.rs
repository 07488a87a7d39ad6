//! Where the parts of a sandbox lie when bubblewrap puts it together, and the view of the file system in which they lie there.

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

/// The sandbox's own files, where they are not on a disk of its own.
const FILES: &str = "files";
/// What is written for `/etc`.
const ETC: &str = "etc";
/// Where a view keeps what is the sandbox's.
const STAGE: &str = "/errand";
/// Where the connector to the network looks how the machine resolves names.
const RESOLVER: &str = "/etc/resolv.conf";
/// The name of an image there.
const IMAGE_SEEN: &str = "image";
/// The directories that a sandbox can write, with their permissions. They last as long as it does.
const WRITABLE: [(&str, u32); 2] = [("tmp", 0o1777), ("workspace", 0o755)];

/// Paths of the parts.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) tmp: PathBuf,
    pub(super) workspace: PathBuf,
    /// The directory that is the sandbox's root, unless that is made of this machine's programs.
    pub(super) root: PathBuf,
    /// The files for `/etc`.
    pub(super) etc: PathBuf,
    /// The program that is the init.
    pub(super) program: PathBuf,
    /// None: bubblewrap sees the machine's file system.
    pub(super) view: Option<View>,
    /// None: the sandbox has no root of its own.
    pub(super) copy: Option<Copy>,
}

/// Where the files for `/etc` are to be written.
pub(super) fn etc_directory(directory: &Path) -> PathBuf {
    directory.join(ETC)
}

impl Places {
    /// The places for a sandbox in this directory. Whoever has a user of its own sees only what it is shown: it could not come to a
    /// directory of the server's.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub(super) fn of(directory: &Path, record: &Record, program: &Path) -> io::Result<Self> {
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
            return Ok(Self::among(&files, root, image, etc_directory(directory), program.to_owned(), None));
        }
        let stage = Path::new(STAGE);
        let bind = |source: &Path, target: &Path, recursive: bool| Bind {
            source: source.to_string_lossy().into_owned(),
            target: target.to_string_lossy().into_owned(),
            recursive,
            optional: false,
        };
        let mut binds = vec![
            // Not what covers parts of it in a container: where that is, the kernel refuses a fresh one to the sandbox.
            bind(Path::new("/proc"), Path::new("/proc"), false),
            bind(Path::new("/dev"), Path::new("/dev"), true),
            bind(Path::new("/etc"), Path::new("/etc"), false),
            bind(&etc_directory(directory), &stage.join(ETC), false),
            bind(program, &stage.join("init"), false),
        ];
        let mut links = HashMap::new();
        for (path, link) in root::programs() {
            match link {
                Some(target) => drop(links.insert(path.to_owned(), target)),
                None => binds.push(bind(Path::new(path), Path::new(path), true)),
            }
        }
        // Where it is a link, it leads out of what is seen.
        binds.extend(
            fs::canonicalize(RESOLVER)
                .ok()
                .filter(|path| !path.starts_with("/etc"))
                .map(|path| bind(&path, &path, false)),
        );
        binds.extend(root.directory().map(|image| bind(image, &stage.join(IMAGE_SEEN), true)));
        let mut disk = String::new();
        match record.disk {
            Some(_) => disk = directory.join(IMAGE).to_string_lossy().into_owned(),
            None => binds.push(bind(&files, &stage.join(FILES), false)),
        }
        let files = stage.join(FILES);
        let directories =
            WRITABLE.map(|(name, mode)| (files.join(name).to_string_lossy().into_owned(), mode)).into_iter().collect();
        let disk_target = files.to_string_lossy().into_owned();
        let view = View { binds, links, disk, disk_target, directories, tun: false };
        Ok(Self::among(&files, root, &stage.join(IMAGE_SEEN), stage.join(ETC), stage.join("init"), Some(view)))
    }

    /// The places, with the sandbox's own files and its image as bubblewrap sees them.
    fn among(files: &Path, root: &Root, image: &Path, etc: PathBuf, program: PathBuf, view: Option<View>) -> Self {
        let copy = files.join("root");
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let wanted = root.is_writable().then(|| Copy { source: text(image), target: text(&copy) });
        Self {
            tmp: files.join("tmp"),
            workspace: files.join("workspace"),
            root: if wanted.is_some() { copy } else { image.to_owned() },
            etc,
            program,
            view,
            copy: wanted,
        }
    }
}

/// Makes a directory with exactly these permissions. One that is there is left as it is.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
