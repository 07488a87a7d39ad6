//! Tests the service on real files, with both ways of resolving paths.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod changes;
mod trees;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use proptest::prelude::*;
use prost::Message as _;
use tempfile::TempDir;
use tonic::Code;

use super::{listing::BATCH, *};
use errand_proto::bridge::{FileChangeKind, FileKind, FileProblem, FileRefusal, read_file_response};

const WAYS: [Way; 2] = [Way::Kernel, Way::Steps];

/// A root, and files beside it that no path may reach from the root.
struct Bench {
    files: Files,
    outer: TempDir,
}

impl Bench {
    fn new(way: Way) -> Self {
        let outer = TempDir::new().unwrap();
        let path = |name: &str| outer.path().join(name);
        fs::create_dir_all(path("root/d/e")).unwrap();
        fs::create_dir(path("beside")).unwrap();
        fs::write(path("beside/secret"), "secret").unwrap();
        fs::write(path("root/f"), "0123456789").unwrap();
        fs::write(path("root/d/g"), "inner").unwrap();
        for (target, link) in [
            ("../../f", "d/e/back"),
            ("d", "down"),
            ("../beside", "out"),
            ("../beside/secret", "out_file"),
            ("../beside/new", "out_new"),
            ("d/e/../../../beside/secret", "out_long"),
            ("/etc/passwd", "absolute"),
            ("loop_b", "loop_a"),
            ("loop_a", "loop_b"),
            ("nowhere", "dangling"),
            ("/proc/self/root", "magic"),
        ] {
            symlink(target, path("root").join(link)).unwrap();
        }
        Self { files: Files { way, ..Files::new() }, outer }
    }

    fn root(&self) -> String {
        self.outer.path().join("root").display().to_string()
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.outer.path().join("root").join(name)
    }

    fn path(&self, path: &str) -> Option<errand_proto::bridge::Path> {
        Some(errand_proto::bridge::Path { path: path.to_owned(), root: self.root() })
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, Status> {
        self.read_part(path, 0, 0).await
    }

    async fn read_part(&self, path: &str, offset: u64, limit: u64) -> Result<Vec<u8>, Status> {
        let request = ReadFileRequest { path: self.path(path), offset, limit };
        let mut parts = self.files.read_file(Request::new(request)).await?.into_inner();
        let first = parts.next().await.unwrap()?.part.unwrap();
        assert!(matches!(first, read_file_response::Part::Entry(_)));
        let mut content = Vec::new();
        while let Some(part) = parts.next().await {
            let Some(read_file_response::Part::Data(data)) = part?.part else { panic!("a second entry") };
            assert!(!data.is_empty() && data.len() <= PIECE);
            content.extend_from_slice(&data);
        }
        Ok(content)
    }

    /// Writes a file as the service does, without the stream.
    fn write(&self, path: &str, content: &[u8], head: WriteFileHead) -> Result<FileEntry, Status> {
        let parsed = path::parse(path.as_bytes(), self.root().as_bytes()).map_err(Refusal::from);
        let written = parsed.and_then(|parsed| {
            let mut part = Part::begin(&parsed, &head, self.files.way)?;
            part.write(content)?;
            part.finish(parsed.name())
        });
        written.map_err(|refusal| refusal.into_status(path.as_bytes()))
    }

    async fn list(&self, path: &str) -> Result<Vec<FileEntry>, Status> {
        let request = ListDirectoryRequest { path: self.path(path) };
        let mut batches = self.files.list_directory(Request::new(request)).await?.into_inner();
        let mut entries = Vec::new();
        while let Some(batch) = batches.next().await {
            entries.extend(batch?.entries);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn stat(&self, path: &str, follow: bool) -> Result<FileEntry, Status> {
        let request = StatFileRequest { path: self.path(path), follow };
        Ok(self.files.stat_file(Request::new(request)).await?.into_inner().entry.unwrap())
    }

    async fn remove(&self, path: &str, recursive: bool) -> Result<(), Status> {
        let request = RemoveFileRequest { path: self.path(path), recursive };
        self.files.remove_file(Request::new(request)).await.map(drop)
    }

    async fn make(&self, path: &str, mode: u32, make_parents: bool) -> Result<FileEntry, Status> {
        let request = MakeDirectoryRequest { path: self.path(path), mode, make_parents };
        Ok(self.files.make_directory(Request::new(request)).await?.into_inner().entry.unwrap())
    }

    async fn rename(&self, path: &str, new_path: &str, must_not_exist: bool) -> Result<FileEntry, Status> {
        let request = RenameFileRequest { path: self.path(path), new_path: new_path.to_owned(), must_not_exist };
        Ok(self.files.rename_file(Request::new(request)).await?.into_inner().entry.unwrap())
    }

    /// Unpacks an archive as the service does, without the stream.
    fn unpack(&self, path: &str, archive: &[u8], head: &WriteTreeHead) -> Result<WriteTreeResponse, Status> {
        let parsed = path::parse(path.as_bytes(), self.root().as_bytes()).map_err(Refusal::from);
        let unpacked = parsed.and_then(|parsed| {
            let mut tree = Unpacking::begin(&parsed, head, self.files.way)?;
            archive.chunks(1000).try_for_each(|piece| tree.write(piece))?;
            tree.finish(parsed.name())
        });
        unpacked.map_err(|refusal| refusal.into_status(path.as_bytes()))
    }

    /// The files beside the root.
    fn beside(&self) -> Vec<(String, String)> {
        let mut found: Vec<_> = fs::read_dir(self.outer.path().join("beside"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().display().to_string(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        found.sort();
        found
    }

    fn parts_left(&self) -> usize {
        fn count(directory: &Path) -> usize {
            // Parts of trees vanish meanwhile.
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries
                .map(|entry| {
                    let below =
                        if entry.file_type().is_ok_and(|kind| kind.is_dir()) { count(&entry.path()) } else { 0 };
                    below + usize::from(entry.file_name().as_encoded_bytes().starts_with(b".errand-"))
                })
                .sum()
        }
        count(self.outer.path())
    }
}

fn head() -> WriteFileHead {
    WriteFileHead::default()
}

#[track_caller]
fn problem<T: std::fmt::Debug>(result: Result<T, Status>) -> FileProblem {
    FileRefusal::decode(result.unwrap_err().details()).unwrap().problem()
}

#[tokio::test]
async fn a_file_is_read_whole_or_in_part() {
    for way in WAYS {
        let bench = Bench::new(way);
        assert_eq!(bench.read("f").await.unwrap(), b"0123456789");
        assert_eq!(bench.read_part("f", 3, 4).await.unwrap(), b"3456");
        assert_eq!(bench.read_part("f", 8, 0).await.unwrap(), b"89");
        assert_eq!(bench.read_part("f", 10, 1).await.unwrap(), b"");
        assert_eq!(bench.read_part("f", u64::MAX, u64::MAX).await.unwrap(), b"");
        let large: Vec<u8> = (0..3 * PIECE + 7).map(|index| index as u8).collect();
        fs::write(bench.at("large"), &large).unwrap();
        assert!(bench.read("large").await.unwrap() == large);
        assert_eq!(problem(bench.read("d").await), FileProblem::IsADirectory);
        assert_eq!(problem(bench.read("f/").await), FileProblem::NotADirectory);
        assert_eq!(problem(bench.read("f/x").await), FileProblem::NotADirectory);
        assert_eq!(problem(bench.read("none/x").await), FileProblem::NotFound);
    }
}

#[tokio::test]
async fn links_are_followed_only_below_the_root() {
    for way in WAYS {
        let bench = Bench::new(way);
        assert_eq!(bench.read("d/e/back").await.unwrap(), b"0123456789", "{way:?}");
        assert_eq!(bench.read("down/g").await.unwrap(), b"inner");
        assert_eq!(bench.read("down/e/../g").await.unwrap(), b"inner");
        for out in ["out/secret", "out_file", "out_long", "../beside/secret", "d/../../beside/secret", "absolute"] {
            assert_eq!(problem(bench.read(out).await), FileProblem::OutsideRoot, "{out} {way:?}");
            assert_eq!(problem(bench.write(out, b"x", head())), FileProblem::OutsideRoot, "{out} {way:?}");
        }
        assert_eq!(problem(bench.write("out_new", b"x", head())), FileProblem::OutsideRoot);
        assert_eq!(problem(bench.read("loop_a").await), FileProblem::TooManyLinks, "{way:?}");
        assert_eq!(problem(bench.write("loop_a", b"x", head())), FileProblem::TooManyLinks);
        assert!(matches!(problem(bench.read("magic/etc/passwd").await), FileProblem::OutsideRoot));
        assert_eq!(problem(bench.list("out").await), FileProblem::OutsideRoot);
        assert_eq!(problem(bench.stat("out/secret", false).await), FileProblem::OutsideRoot);
        assert_eq!(problem(bench.stat("out", true).await), FileProblem::OutsideRoot);
        assert_eq!(&bench.stat("out", false).await.unwrap().link_target[..], b"../beside");
        assert_eq!(bench.beside(), [("secret".to_owned(), "secret".to_owned())]);
    }
}

#[tokio::test]
async fn write_replaces_the_file_and_keeps_its_mode() {
    for way in WAYS {
        let bench = Bench::new(way);
        let mode = |name: &str| fs::metadata(bench.at(name)).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(bench.at("f"), fs::Permissions::from_mode(0o750)).unwrap();
        let entry = bench.write("f", b"new", head()).unwrap();
        assert_eq!((&entry.name[..], entry.size, entry.mode, entry.kind()), (&b"f"[..], 3, 0o750, FileKind::File));
        assert_eq!((fs::read(bench.at("f")).unwrap(), mode("f")), (b"new".to_vec(), 0o750));
        bench.write("f", b"", WriteFileHead { mode: 0o4711, ..head() }).unwrap();
        assert_eq!(mode("f"), 0o4711);
        bench.write("fresh", b"x", head()).unwrap();
        assert_eq!(mode("fresh"), 0o644);
        // A link stays and its target changes, also a target that did not exist.
        bench.write("d/e/back", b"through", head()).unwrap();
        assert_eq!(fs::read(bench.at("f")).unwrap(), b"through");
        bench.write("dangling", b"there", head()).unwrap();
        assert_eq!(fs::read(bench.at("nowhere")).unwrap(), b"there");
        assert!(fs::symlink_metadata(bench.at("dangling")).unwrap().is_symlink());
        assert_eq!(bench.parts_left(), 0);
    }
}

#[tokio::test]
async fn unfinished_write_leaves_no_file() {
    for way in WAYS {
        let bench = Bench::new(way);
        let parsed = path::parse(b"f", bench.root().as_bytes()).unwrap();
        let mut part = Part::begin(&parsed, &head(), way).unwrap();
        part.write(b"half").unwrap();
        assert_eq!(bench.parts_left(), 1);
        drop(part);
        assert_eq!((bench.parts_left(), bench.read("f").await.unwrap()), (0, b"0123456789".to_vec()));
    }
}

#[tokio::test]
async fn write_refuses_paths_that_cannot_be_files() {
    for way in WAYS {
        let bench = Bench::new(way);
        let new = WriteFileHead { must_not_exist: true, ..head() };
        assert_eq!(problem(bench.write("d", b"", head())), FileProblem::IsADirectory);
        assert_eq!(problem(bench.write("x/", b"", head())), FileProblem::IsADirectory);
        assert_eq!(problem(bench.write(".", b"", head())), FileProblem::IsADirectory);
        assert_eq!(problem(bench.write("none/x", b"", head())), FileProblem::NotFound);
        assert_eq!(problem(bench.write("f/x", b"", head())), FileProblem::NotADirectory);
        assert_eq!(problem(bench.write("f", b"", new.clone())), FileProblem::AlreadyExists);
        assert_eq!(problem(bench.write("dangling", b"", new.clone())), FileProblem::AlreadyExists);
        assert_eq!(problem(bench.write(&"x".repeat(256), b"", head())), FileProblem::InvalidPath);
        bench.write("x", b"1", new.clone()).unwrap();
        // A file that another writer created first is not overwritten.
        let parsed = path::parse(b"y", bench.root().as_bytes()).unwrap();
        let part = Part::begin(&parsed, &new, way).unwrap();
        fs::write(bench.at("y"), "theirs").unwrap();
        assert_eq!(part.finish(b"y").unwrap_err().problem, errand_task::FileProblem::AlreadyExists);
        assert_eq!((fs::read(bench.at("y")).unwrap(), bench.parts_left()), (b"theirs".to_vec(), 0));
    }
}

#[tokio::test]
async fn missing_parents_are_made_on_request() {
    for way in WAYS {
        let bench = Bench::new(way);
        let parents = WriteFileHead { make_parents: true, ..head() };
        bench.write("p/q/../r/s", b"x", parents.clone()).unwrap();
        assert_eq!(fs::read(bench.at("p/r/s")).unwrap(), b"x");
        bench.write("down/n/m", b"x", parents.clone()).unwrap();
        assert_eq!(fs::read(bench.at("d/n/m")).unwrap(), b"x");
        assert_eq!(problem(bench.write("f/a/b", b"x", parents.clone())), FileProblem::NotADirectory);
        assert_eq!(problem(bench.write("out/a/b", b"x", parents)), FileProblem::OutsideRoot);
        assert_eq!(bench.beside().len(), 1);
    }
}

#[tokio::test]
async fn directory_listing_keeps_any_file_name() {
    for way in WAYS {
        let bench = Bench::new(way);
        let names: [&[u8]; 4] = [b" a\nb ", b"\xff\xfe", "ü€".as_bytes(), b"-rf *"];
        fs::create_dir(bench.at("names")).unwrap();
        for name in names {
            use std::os::unix::ffi::OsStrExt as _;
            fs::write(bench.at("names").join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
        let listed = bench.list("names").await.unwrap();
        let mut expected = names.map(<[u8]>::to_vec);
        expected.sort();
        assert_eq!(listed.iter().map(|entry| entry.name.to_vec()).collect::<Vec<_>>(), expected);
        for number in 0..2 * BATCH {
            fs::write(bench.at("d/e").join(number.to_string()), "").unwrap();
        }
        let listed = bench.list("d/e").await.unwrap();
        assert_eq!(listed.len(), 2 * BATCH + 1);
        let link = listed.iter().find(|entry| &entry.name[..] == b"back").unwrap();
        assert_eq!((link.kind(), &link.link_target[..]), (FileKind::Symlink, &b"../../f"[..]));
        assert_eq!(problem(bench.list("f").await), FileProblem::NotADirectory);
        assert!(bench.list(".").await.unwrap().len() > 5);
    }
}

#[tokio::test]
async fn a_removal_follows_no_link() {
    for way in WAYS {
        let bench = Bench::new(way);
        assert_eq!(problem(bench.remove("d", false).await), FileProblem::NotEmpty);
        assert_eq!(problem(bench.remove("f/", true).await), FileProblem::NotADirectory);
        assert_eq!(problem(bench.remove(".", true).await), FileProblem::InvalidPath);
        assert_eq!(problem(bench.remove("d/..", true).await), FileProblem::InvalidPath);
        assert_eq!(problem(bench.remove("out/secret", true).await), FileProblem::OutsideRoot);
        fs::create_dir_all(bench.at("tree/a/b")).unwrap();
        symlink(bench.outer.path().join("beside"), bench.at("tree/a/b/away")).unwrap();
        fs::write(bench.at("tree/a/file"), "").unwrap();
        bench.remove("tree", true).await.unwrap();
        assert!(!bench.at("tree").exists());
        bench.remove("out", true).await.unwrap();
        bench.remove("down", true).await.unwrap();
        assert!(bench.at("d/g").exists());
        assert_eq!(problem(bench.remove("tree", true).await), FileProblem::NotFound);
        assert_eq!(bench.beside(), [("secret".to_owned(), "secret".to_owned())]);
    }
}

#[tokio::test]
async fn tree_deeper_than_the_path_limit_is_removed() {
    use rustix::fs::{CWD, Mode, mkdirat, openat};
    let bench = Bench::new(Way::Kernel);
    let mut here = openat(CWD, bench.at("."), resolve::HOLD, Mode::empty()).unwrap();
    for _ in 0..3000 {
        mkdirat(&here, "deep", Mode::from_raw_mode(0o755)).unwrap();
        here = openat(&here, "deep", resolve::HOLD, Mode::empty()).unwrap();
    }
    bench.remove("deep", true).await.unwrap();
    assert!(!bench.at("deep").exists());
}

#[tokio::test]
async fn cancelled_removal_stops() {
    let bench = Bench::new(Way::Kernel);
    let parsed = path::parse(b"d", bench.root().as_bytes()).unwrap();
    let stopped = remove::remove(&parsed, true, Way::Kernel, &AtomicBool::new(true));
    assert!(stopped.is_err() && bench.at("d/g").exists());
}

#[tokio::test]
async fn directories_are_made_with_their_mode() {
    for way in WAYS {
        let bench = Bench::new(way);
        let entry = bench.make("new", 0o2750, false).await.unwrap();
        assert_eq!((&entry.name[..], entry.kind(), entry.mode), (&b"new"[..], FileKind::Directory, 0o2750));
        assert_eq!(problem(bench.make("new", 0, false).await), FileProblem::AlreadyExists);
        assert_eq!(problem(bench.make("a/b", 0, false).await), FileProblem::NotFound);
        assert_eq!(bench.make("a/b/", 0, true).await.unwrap().kind(), FileKind::Directory);
        // What exists is left as it is, also behind a link.
        assert_eq!(bench.make("new", 0o700, true).await.unwrap().mode, 0o2750);
        assert_eq!(bench.make("down", 0, true).await.unwrap().kind(), FileKind::Directory);
        assert_eq!(bench.make(".", 0, true).await.unwrap().kind(), FileKind::Directory);
        assert_eq!(problem(bench.make("f", 0, true).await), FileProblem::AlreadyExists);
        assert_eq!(problem(bench.make("dangling", 0, true).await), FileProblem::AlreadyExists);
        assert_eq!(problem(bench.make("f/x", 0, true).await), FileProblem::NotADirectory);
        assert_eq!(problem(bench.make("out/x", 0, true).await), FileProblem::OutsideRoot);
        assert_eq!(problem(bench.make("out", 0, true).await), FileProblem::OutsideRoot);
    }
}

#[tokio::test]
async fn files_and_directories_are_renamed() {
    for way in WAYS {
        let bench = Bench::new(way);
        let entry = bench.rename("d", "moved", true).await.unwrap();
        assert_eq!((&entry.name[..], entry.kind()), (&b"moved"[..], FileKind::Directory));
        assert_eq!(fs::read(bench.at("moved/g")).unwrap(), b"inner");
        fs::write(bench.at("old"), "old").unwrap();
        assert_eq!(problem(bench.rename("f", "old", true).await), FileProblem::AlreadyExists);
        bench.rename("f", "old", false).await.unwrap();
        assert_eq!(fs::read(bench.at("old")).unwrap(), b"0123456789");
        // A link itself is renamed, and its target stays.
        let link = bench.rename("out_file", "moved/link", false).await.unwrap();
        assert_eq!((link.kind(), &link.link_target[..]), (FileKind::Symlink, &b"../beside/secret"[..]));
        assert_eq!(problem(bench.rename("none", "x", false).await), FileProblem::NotFound);
        assert_eq!(problem(bench.rename("old", "none/x", false).await), FileProblem::NotFound);
        assert_eq!(problem(bench.rename("old", "moved", false).await), FileProblem::IsADirectory);
        assert_eq!(problem(bench.rename("moved", "old", false).await), FileProblem::NotADirectory);
        assert_eq!(problem(bench.rename("old/", "x", false).await), FileProblem::NotADirectory);
        assert_eq!(problem(bench.rename("moved", "moved/in_itself", false).await), FileProblem::InvalidPath);
        assert_eq!(problem(bench.rename("old", "out/x", false).await), FileProblem::OutsideRoot);
        assert_eq!(problem(bench.rename("old", "../beside/x", false).await), FileProblem::OutsideRoot);
        assert_eq!(bench.beside(), [("secret".to_owned(), "secret".to_owned())]);
    }
}

#[tokio::test]
async fn fifo_is_neither_read_nor_written() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    for way in WAYS {
        let bench = Bench::new(way);
        mknodat(CWD, bench.at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(problem(bench.read("pipe").await), FileProblem::NotAFile);
        assert_eq!(problem(bench.write("pipe", b"", head())), FileProblem::NotAFile);
        assert_eq!(bench.stat("pipe", true).await.unwrap().kind(), FileKind::Other);
    }
}

#[tokio::test]
async fn path_without_root_reaches_the_file_system() {
    let bench = Bench::new(Way::Kernel);
    let path = |path: String| Some(errand_proto::bridge::Path { path, root: String::new() });
    let stat = |given| bench.files.stat_file(Request::new(StatFileRequest { path: given, follow: true }));
    let secret = format!("{}/out/secret", bench.root());
    assert_eq!(stat(path(secret)).await.unwrap().into_inner().entry.unwrap().size, 6);
    assert_eq!(stat(path("/".to_owned())).await.unwrap().into_inner().entry.unwrap().kind(), FileKind::Directory);
    let status = stat(path("relative".to_owned())).await.unwrap_err();
    assert_eq!((status.code(), problem(Err::<(), _>(status))), (Code::InvalidArgument, FileProblem::InvalidPath));
}

/// Names for paths that try to leave the root.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "d", "e", "f", "g", "down", "out", "out_file", "out_new", "out_long", "absolute", "loop_a", "dangling",
            "magic", "back", "beside", "secret", "etc", "passwd", "root", "new",
        ]).prop_map(str::to_owned),
        4 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => Just("x".repeat(300)),
        1 => "\\PC{0,4}",
        1 => any::<[char; 2]>().prop_map(String::from_iter),
        1 => Just("a\0b".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_path_ever_leaves_the_root(words in prop::collection::vec(word(), 1..7), steps in any::<bool>(), kind in 0..7) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new(if steps { Way::Steps } else { Way::Kernel });
            let path = words.join("/");
            match kind {
                0 => if let Ok(content) = bench.read(&path).await {
                    assert!([&b"0123456789"[..], b"inner"].contains(&&content[..]), "{path:?} gave {content:?}");
                },
                1 => {
                    let head = WriteFileHead { make_parents: words.len() % 2 == 0, ..head() };
                    // Includes files that were created where none existed.
                    let _ = bench.write(&path, b"written", head);
                }
                2 => drop(bench.remove(&path, true).await),
                3 => drop(bench.make(&path, 0o700, words.len() % 2 == 0).await),
                4 => drop(bench.rename("d/g", &path, words.len() % 2 == 0).await),
                5 => {
                    let head = WriteTreeHead { make_parents: true, merge: words.len() % 2 == 0, ..WriteTreeHead::default() };
                    let _ = bench.unpack(&path, &trees::one_file(&words.join("_")), &head);
                }
                _ => if let Ok(entries) = bench.list(&path).await {
                    assert!(entries.iter().all(|entry| &entry.name[..] != b"secret"), "{path:?}");
                },
            }
            assert_eq!(bench.beside(), [("secret".to_owned(), "secret".to_owned())], "{path:?}");
            let around: Vec<_> = fs::read_dir(bench.outer.path()).unwrap().collect();
            assert_eq!(around.len(), 2, "{path:?}");
            bench.nothing_is_left().await;
        });
    }
}
