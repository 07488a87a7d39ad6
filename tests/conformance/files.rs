//! What every way to a sandbox's files must do. Written against the contract alone; [`files_conformance`] makes one test of each case.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use errand::{
    bridge::{Abandoned, FileError, SandboxFiles},
    task::{FileEntry, FileKind, FilePath, FileProblem, WriteOptions},
};
use futures_util::{StreamExt as _, stream};

use crate::support::wait::{eventually, soon};

/// A shell beside what is tested.
#[async_trait]
pub trait Shell: Send + Sync {
    /// What a script prints. It must not complain.
    async fn run(&self, script: &str) -> String;
}

/// A sandbox, and a directory in it that belongs to one test.
pub struct Bench {
    files: Arc<dyn SandboxFiles>,
    shell: Arc<dyn Shell>,
    sandbox: String,
    directory: String,
    /// A file system of 1 MiB, where there is one.
    small: Option<&'static str>,
    _keep: Box<dyn Any + Send>,
}

type Result<T> = std::result::Result<T, FileError>;

impl Bench {
    pub async fn new(
        files: Arc<dyn SandboxFiles>,
        shell: Arc<dyn Shell>,
        sandbox: String,
        directory: &str,
        small: Option<&'static str>,
        keep: impl Any + Send,
    ) -> Self {
        shell.run(&format!("mkdir -p '{directory}'")).await;
        Self { files, shell, sandbox, directory: directory.to_owned(), small, _keep: Box::new(keep) }
    }

    /// Runs a script in the directory.
    async fn sh(&self, script: &str) -> String {
        self.shell.run(&format!("cd '{}' || exit\n{script}", self.directory)).await
    }

    /// A path in the directory, without a root.
    fn at(&self, name: &str) -> FilePath {
        FilePath { path: format!("{}/{name}", self.directory), root: None }
    }

    /// A path below `root` in the directory.
    fn below(&self, name: &str) -> FilePath {
        FilePath { path: name.to_owned(), root: Some(format!("{}/root", self.directory)) }
    }

    async fn read_part(&self, path: &FilePath, offset: u64, limit: Option<u64>) -> Result<(FileEntry, Vec<u8>)> {
        let mut reader = soon("a file opens", self.files.read_file(&self.sandbox, path, offset, limit)).await?;
        let mut content = Vec::new();
        while let Some(piece) = soon("a piece comes", reader.content.next()).await {
            let piece = piece?;
            assert!(!piece.is_empty() && piece.len() <= 256 * 1024, "{} bytes at once", piece.len());
            content.extend_from_slice(&piece);
        }
        Ok((reader.entry, content))
    }

    async fn read(&self, path: &FilePath) -> Result<Vec<u8>> {
        Ok(self.read_part(path, 0, None).await?.1)
    }

    async fn write_as(&self, path: &FilePath, options: WriteOptions, content: &[u8]) -> Result<FileEntry> {
        let pieces: Vec<_> = content.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let content = Box::pin(stream::iter(pieces));
        soon("a file is written", self.files.write_file(&self.sandbox, path, options, content)).await
    }

    async fn write(&self, path: &FilePath, content: &[u8]) -> Result<FileEntry> {
        self.write_as(path, WriteOptions::default(), content).await
    }

    async fn list(&self, path: &FilePath) -> Result<Vec<FileEntry>> {
        let mut stream = soon("a list begins", self.files.list_directory(&self.sandbox, path)).await?;
        let mut entries = Vec::new();
        while let Some(entry) = soon("an entry comes", stream.next()).await {
            entries.push(entry?);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn names(&self, path: &FilePath) -> Vec<String> {
        let entries = self.list(path).await.unwrap();
        entries.into_iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect()
    }

    async fn stat(&self, path: &FilePath, follow: bool) -> Result<FileEntry> {
        soon("a file is described", self.files.stat_file(&self.sandbox, path, follow)).await
    }

    async fn remove(&self, path: &FilePath, recursive: bool) -> Result<()> {
        soon("a file is removed", self.files.remove_file(&self.sandbox, path, recursive)).await
    }

    /// Makes `root`, with links of every kind in it, and `beside`, which must not be reached from there.
    async fn make_root(&self) {
        self.sh("mkdir -p root/d/e beside && cd root && printf secret >../beside/secret && printf inner >d/g &&
            ln -s ../../f d/e/back && printf file >f && ln -s d down && ln -s ../beside out && ln -s ../beside/secret out_file &&
            ln -s ../beside/new out_new && ln -s /etc/passwd absolute && ln -s loop_b loop_a && ln -s loop_a loop_b &&
            ln -s nowhere dangling && ln -s .. up && ln -s d/e/../../../beside/secret long")
            .await;
    }

    async fn beside(&self) -> String {
        self.sh("cd beside && ls -A && cat secret").await
    }
}

#[track_caller]
fn problem<T: std::fmt::Debug>(result: Result<T>) -> FileProblem {
    match result {
        Err(FileError::Refused(refusal)) => {
            assert!(refusal.to_string().contains(&format!("{:?}", refusal.path)), "{refusal}");
            refusal.problem
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn new() -> WriteOptions {
    WriteOptions { must_not_exist: true, ..WriteOptions::default() }
}

fn parents() -> WriteOptions {
    WriteOptions { make_parents: true, ..WriteOptions::default() }
}

/// Bytes of every value, without a pattern that a piece could repeat.
fn content(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

pub async fn content_of_any_size_comes_back_as_it_was(bench: Bench) {
    for size in [0, 1, 65_536, (1 << 20) - 1, 1 << 20, (3 << 20) + 7] {
        let path = bench.at("file");
        let content = content(size);
        let entry = bench.write(&path, &content).await.unwrap();
        assert_eq!((entry.size, entry.kind, &entry.name[..]), (size as u64, FileKind::File, &b"file"[..]));
        let (entry, read) = bench.read_part(&path, 0, None).await.unwrap();
        assert!(read == content, "{size} bytes");
        assert_eq!(entry.size, size as u64);
    }
    // Control characters, lines that look like the bridge's own.
    let tricky = b"refused - no\nentry ./x//81a4/1/1/1/1/1\nend\nend 5\n\0\r\n12\n".repeat(3);
    bench.write(&bench.at("file"), &tricky).await.unwrap();
    assert_eq!(bench.read(&bench.at("file")).await.unwrap(), tricky);
    assert_eq!(bench.names(&bench.at("")).await, ["file"]);
}

pub async fn a_part_is_read_by_offset_and_limit(bench: Bench) {
    let path = bench.at("file");
    bench.write(&path, b"0123456789").await.unwrap();
    for (offset, limit, expected) in [
        (0, Some(4), "0123"),
        (3, Some(4), "3456"),
        (8, None, "89"),
        (8, Some(100), "89"),
        (10, None, ""),
        (99, Some(1), ""),
        (u64::MAX, Some(u64::MAX), ""),
    ] {
        let (entry, read) = bench.read_part(&path, offset, limit).await.unwrap();
        assert_eq!((entry.size, read.as_slice()), (10, expected.as_bytes()), "{offset} {limit:?}");
    }
}

pub async fn a_file_of_the_kernel_is_read(bench: Bench) {
    let path = FilePath { path: "/proc/version".to_owned(), root: None };
    let version = bench.sh("cat /proc/version").await;
    assert_eq!(bench.read(&path).await.unwrap(), version.as_bytes());
    assert_eq!(bench.read_part(&path, 6, Some(7)).await.unwrap().1, &version.as_bytes()[6..13]);
}

pub async fn a_write_takes_the_place_of_the_old_file(bench: Bench) {
    let path = bench.at("file");
    assert_eq!(bench.write(&path, b"one").await.unwrap().mode, 0o644);
    bench.sh("chmod 750 file").await;
    assert_eq!(bench.write(&path, b"two").await.unwrap().mode, 0o750);
    let options = WriteOptions { mode: Some(0o4701), ..WriteOptions::default() };
    assert_eq!(bench.write_as(&path, options, b"three").await.unwrap().mode, 0o4701);
    assert_eq!(bench.sh("cat file; stat -c ' %a' file; ls -A").await, "three 4701\nfile\n");
    // Whoever has the old file open reads the old file.
    let read = bench.sh("printf old >file; exec 4<file; echo new >next; mv next file; cat <&4; cat file").await;
    assert_eq!(read, "oldnew\n");
}

pub async fn a_write_follows_links(bench: Bench) {
    bench.sh("printf old >file; mkdir d; ln -s ../file d/link; ln -s d/link again; ln -s fresh dangling").await;
    bench.write(&bench.at("again"), b"new").await.unwrap();
    bench.write(&bench.at("dangling"), b"made").await.unwrap();
    assert_eq!(bench.sh("cat file fresh; readlink d/link").await, "newmade../file\n");
    assert_eq!(bench.stat(&bench.at("again"), false).await.unwrap().kind, FileKind::Symlink);
    assert_eq!(bench.stat(&bench.at("d/link"), false).await.unwrap().kind, FileKind::Symlink);
    let absolute = format!("ln -s '{}/file' absolute", bench.directory);
    bench.sh(&absolute).await;
    bench.write(&bench.at("absolute"), b"newer").await.unwrap();
    assert_eq!(bench.sh("cat file").await, "newer");
}

pub async fn an_abandoned_write_leaves_the_old_file_and_nothing_else(bench: Bench) {
    let path = bench.at("file");
    bench.write(&path, b"old").await.unwrap();
    let half = || stream::iter(vec![Ok(Bytes::from(content(2 << 20)))]);
    // Taken back.
    let content = Box::pin(half().chain(stream::iter([Err(Abandoned)])));
    let result = bench.files.write_file(&bench.sandbox, &path, WriteOptions::default(), content).await;
    assert!(matches!(result, Err(FileError::Abandoned)), "{result:?}");
    // Cut short.
    let content = Box::pin(half().chain(stream::pending()));
    let writing = bench.files.write_file(&bench.sandbox, &path, WriteOptions::default(), content);
    let cut = tokio::time::timeout(Duration::from_millis(1500), writing).await;
    assert!(cut.is_err(), "it waits for the rest");
    eventually("the unfinished files are removed", async || {
        (bench.names(&bench.at("")).await == ["file"]).then_some(())
    })
    .await;
    assert_eq!(bench.read(&path).await.unwrap(), b"old");
}

pub async fn nothing_is_overwritten_that_must_not_be_there(bench: Bench) {
    bench.sh("printf old >file; mkdir d; ln -s nowhere dangling").await;
    for name in ["file", "d", "dangling"] {
        let result = bench.write_as(&bench.at(name), new(), b"x").await;
        assert_eq!(problem(result), FileProblem::AlreadyExists, "{name}");
    }
    bench.write_as(&bench.at("fresh"), new(), b"x").await.unwrap();
    assert_eq!(bench.names(&bench.at("")).await, ["d", "dangling", "file", "fresh"]);
    // Somebody is faster.
    let late = bench.at("late");
    let shell = Arc::clone(&bench.shell);
    let script = format!("printf theirs >'{}'", late.path);
    let content = stream::once(async move {
        shell.run(&script).await;
        Ok(Bytes::from_static(b"ours"))
    });
    let result = bench.files.write_file(&bench.sandbox, &late, new(), Box::pin(content)).await;
    assert_eq!(problem(result), FileProblem::AlreadyExists);
    assert_eq!(bench.sh("cat late; ls -A | grep -c errand || true").await, "theirs0\n");
}

pub async fn directories_above_are_made_when_asked_for(bench: Bench) {
    bench.make_root().await;
    assert_eq!(problem(bench.write(&bench.at("a/b/c"), b"x").await), FileProblem::NotFound);
    bench.write_as(&bench.at("a/b/c"), parents(), b"x").await.unwrap();
    bench.write_as(&bench.below("p/q/../r/s"), parents(), b"y").await.unwrap();
    bench.write_as(&bench.below("down/n/m"), parents(), b"z").await.unwrap();
    assert_eq!(bench.sh("cat a/b/c root/p/r/s root/d/n/m; stat -c ' %a' a").await, "xyz 755\n");
    assert_eq!(problem(bench.write_as(&bench.at("root/f/a/b"), parents(), b"").await), FileProblem::NotADirectory);
    assert_eq!(problem(bench.write_as(&bench.at("root/dangling/x"), parents(), b"").await), FileProblem::NotFound);
    assert_eq!(problem(bench.write_as(&bench.below("out/a/b"), parents(), b"").await), FileProblem::OutsideRoot);
    assert_eq!(bench.beside().await, "secret\nsecret");
}

pub async fn what_is_in_the_way_is_told_apart(bench: Bench) {
    bench.sh("printf x >file; mkdir -p d/full/x; mkfifo pipe; ln -s loop loop").await;
    let long = "x".repeat(256);
    let at = |name: &str| bench.at(name);
    for (name, expected) in [
        ("none", FileProblem::NotFound),
        ("none/x", FileProblem::NotFound),
        ("file/x", FileProblem::NotADirectory),
        ("file/", FileProblem::NotADirectory),
        ("d", FileProblem::IsADirectory),
        ("d/", FileProblem::IsADirectory),
        ("pipe", FileProblem::NotAFile),
        ("loop", FileProblem::TooManyLinks),
        (long.as_str(), FileProblem::InvalidPath),
    ] {
        assert_eq!(problem(bench.read(&at(name)).await), expected, "read {name}");
    }
    for (name, expected) in [
        ("none/x", FileProblem::NotFound),
        ("file/x", FileProblem::NotADirectory),
        ("d", FileProblem::IsADirectory),
        ("new/", FileProblem::IsADirectory),
        ("pipe", FileProblem::NotAFile),
        ("loop", FileProblem::TooManyLinks),
        (long.as_str(), FileProblem::InvalidPath),
    ] {
        assert_eq!(problem(bench.write(&at(name), b"x").await), expected, "write {name}");
    }
    for (name, expected) in
        [("none", FileProblem::NotFound), ("file", FileProblem::NotADirectory), ("loop", FileProblem::TooManyLinks)]
    {
        assert_eq!(problem(bench.list(&at(name)).await), expected, "list {name}");
    }
    for (name, follow, expected) in [
        ("none", false, FileProblem::NotFound),
        ("file/x", false, FileProblem::NotADirectory),
        ("file/", false, FileProblem::NotADirectory),
        ("loop", true, FileProblem::TooManyLinks),
    ] {
        assert_eq!(problem(bench.stat(&at(name), follow).await), expected, "stat {name}");
    }
    for (name, recursive, expected) in [
        ("none", true, FileProblem::NotFound),
        ("d/full", false, FileProblem::NotEmpty),
        ("file/", true, FileProblem::NotADirectory),
        ("file/x", true, FileProblem::NotADirectory),
        ("d/..", true, FileProblem::InvalidPath),
    ] {
        assert_eq!(problem(bench.remove(&at(name), recursive).await), expected, "remove {name}");
    }
    // Neither is for a sandbox to write, if it has it at all.
    let system = bench.sh("if [ -d /sys ]; then echo /sys; else echo /usr; fi").await;
    let system = FilePath { path: format!("{}/errand-test", system.trim()), root: None };
    assert_eq!(problem(bench.write(&system, b"x").await), FileProblem::NotPermitted);
    for (path, root) in [("relative", None), ("/absolute", Some("/tmp")), ("a", Some("tmp")), ("a\0b", Some("/tmp"))] {
        let path = FilePath { path: path.to_owned(), root: root.map(str::to_owned) };
        assert_eq!(problem(bench.stat(&path, true).await), FileProblem::InvalidPath, "{path:?}");
    }
    assert_eq!(bench.names(&at("")).await, ["d", "file", "loop", "pipe"]);
}

pub async fn a_refusal_does_not_wait_for_the_content(bench: Bench) {
    bench.sh("mkdir d").await;
    let endless = || Box::pin(stream::repeat_with(|| Ok(Bytes::from(vec![0; 100_000]))));
    for (path, options, expected) in [
        (bench.at("d"), WriteOptions::default(), FileProblem::IsADirectory),
        (bench.at("none/x"), WriteOptions::default(), FileProblem::NotFound),
        (bench.at("d"), new(), FileProblem::AlreadyExists),
    ] {
        let writing = bench.files.write_file(&bench.sandbox, &path, options, endless());
        assert_eq!(problem(soon("the refusal comes", writing).await), expected);
    }
}

pub async fn names_may_hold_anything(bench: Bench) {
    let names = [
        "a\nb",
        " blank ",
        "-rf",
        "*",
        "$(touch x)",
        "`id`",
        "'\"\\",
        "ü€🦀",
        ".hidden",
        "..odd",
        "...",
        "a: Permission denied",
        "\n",
        "trail\n",
    ];
    for name in names {
        bench.write(&bench.at(name), name.as_bytes()).await.unwrap();
        assert_eq!(bench.read(&bench.at(name)).await.unwrap(), name.as_bytes(), "{name:?}");
        assert_eq!(&bench.stat(&bench.at(name), false).await.unwrap().name[..], name.as_bytes(), "{name:?}");
    }
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(bench.names(&bench.at("")).await, expected);
    for name in names {
        bench.remove(&bench.at(name), false).await.unwrap();
    }
    assert_eq!(bench.names(&bench.at("")).await, [""; 0]);
    // What is no text can be seen, though not asked for; and so can links with such names.
    bench.sh("name=$(printf 'n\\377\\nm'); : >\"$name\"; ln -s \"$name\" \"l$name\"").await;
    let listed = bench.list(&bench.at("")).await.unwrap();
    assert_eq!(listed.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>(), [&b"ln\xff\nm"[..], b"n\xff\nm"]);
    assert_eq!(&listed[0].link_target[..], b"n\xff\nm");
}

pub async fn an_entry_says_what_a_file_is(bench: Bench) {
    bench
        .sh("printf 12345 >file; chmod 640 file; mkdir -m 2750 d; ln -s d/none link; mkfifo pipe; ln -s file good")
        .await;
    let entry = bench.stat(&bench.at("file"), false).await.unwrap();
    let owner = bench.sh("stat -c '%u %g' file").await;
    assert_eq!((entry.kind, entry.size, entry.mode), (FileKind::File, 5, 0o640));
    assert_eq!(format!("{} {}\n", entry.uid, entry.gid), owner);
    let age = SystemTime::now().duration_since(entry.modified).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{:?}", entry.modified);
    let entry = bench.stat(&bench.at("d/"), false).await.unwrap();
    assert_eq!((entry.kind, entry.mode, &entry.name[..]), (FileKind::Directory, 0o2750, &b"d"[..]));
    let link = bench.stat(&bench.at("link"), false).await.unwrap();
    assert_eq!((link.kind, &link.link_target[..]), (FileKind::Symlink, &b"d/none"[..]));
    assert_eq!(problem(bench.stat(&bench.at("link"), true).await), FileProblem::NotFound);
    let good = bench.stat(&bench.at("good"), true).await.unwrap();
    assert_eq!((good.kind, good.size, &good.name[..], good.link_target.len()), (FileKind::File, 5, &b"good"[..], 0));
    let listed = bench.list(&bench.at("")).await.unwrap();
    let kinds: Vec<_> = listed.iter().map(|entry| (String::from_utf8_lossy(&entry.name), entry.kind)).collect();
    assert_eq!(
        kinds.iter().map(|(name, kind)| (name.as_ref(), *kind)).collect::<Vec<_>>(),
        [
            ("d", FileKind::Directory),
            ("file", FileKind::File),
            ("good", FileKind::Symlink),
            ("link", FileKind::Symlink),
            ("pipe", FileKind::Other)
        ]
    );
    assert_eq!(listed[1], FileEntry { name: b"file".to_vec(), ..bench.stat(&bench.at("file"), false).await.unwrap() });
    let top = bench.stat(&FilePath { path: "/".to_owned(), root: None }, false).await.unwrap();
    assert_eq!((top.kind, &top.name[..]), (FileKind::Directory, &b"/"[..]));
}

pub async fn a_large_directory_is_listed_whole(bench: Bench) {
    bench.sh("mkdir many empty; cd many; i=0; while [ $i -lt 5000 ]; do : >f$i; i=$((i + 1)); done; ln -s f1 l").await;
    let listed = bench.list(&bench.at("many")).await.unwrap();
    assert_eq!(listed.len(), 5001);
    assert!(listed.iter().all(|entry| entry.kind == FileKind::File || &entry.link_target[..] == b"f1"));
    assert!(bench.list(&bench.at("empty")).await.unwrap().is_empty());
    // A listing that nobody reads to its end disturbs nobody.
    let stream = bench.files.list_directory(&bench.sandbox, &bench.at("many")).await.unwrap();
    drop(stream);
    bench.remove(&bench.at("many"), true).await.unwrap();
    assert_eq!(bench.names(&bench.at("")).await, ["empty"]);
}

pub async fn links_below_a_root_do_not_lead_out_of_it(bench: Bench) {
    bench.make_root().await;
    assert_eq!(bench.read(&bench.below("d/e/back")).await.unwrap(), b"file");
    assert_eq!(bench.read(&bench.below("down/g")).await.unwrap(), b"inner");
    assert_eq!(bench.read(&bench.below("down/e/../g")).await.unwrap(), b"inner");
    assert_eq!(bench.read(&bench.below("d/../f")).await.unwrap(), b"file");
    for out in [
        "out/secret",
        "out_file",
        "long",
        "absolute",
        "up/beside/secret",
        "../beside/secret",
        "d/../../beside/secret",
        "down/../../beside/secret",
        "..",
        "../root/f",
    ] {
        let path = bench.below(out);
        assert_eq!(problem(bench.read(&path).await), FileProblem::OutsideRoot, "read {out}");
        assert_eq!(problem(bench.stat(&path, true).await), FileProblem::OutsideRoot, "stat {out}");
        assert_eq!(problem(bench.list(&path).await), FileProblem::OutsideRoot, "list {out}");
        if out != ".." {
            assert_eq!(problem(bench.write(&path, b"x").await), FileProblem::OutsideRoot, "write {out}");
        }
    }
    assert_eq!(problem(bench.write(&bench.below("out_new"), b"x").await), FileProblem::OutsideRoot);
    assert_eq!(problem(bench.write(&bench.below("out/new"), b"x").await), FileProblem::OutsideRoot);
    assert_eq!(problem(bench.remove(&bench.below("out/secret"), true).await), FileProblem::OutsideRoot);
    assert_eq!(problem(bench.list(&bench.below("out")).await), FileProblem::OutsideRoot);
    assert_eq!(problem(bench.stat(&bench.below("out"), true).await), FileProblem::OutsideRoot);
    assert_eq!(&bench.stat(&bench.below("out"), false).await.unwrap().link_target[..], b"../beside");
    assert_eq!(bench.beside().await, "secret\nsecret");
    assert_eq!(bench.stat(&bench.below("."), false).await.unwrap().kind, FileKind::Directory);
    assert_eq!(bench.names(&bench.below(".")).await.len(), 12);
    // A root is trusted: links in it are followed, and it must be there.
    bench.sh("ln -s root alias").await;
    let alias = FilePath { path: "f".to_owned(), root: Some(format!("{}/alias", bench.directory)) };
    assert_eq!(bench.read(&alias).await.unwrap(), b"file");
    let none = FilePath { path: "f".to_owned(), root: Some(format!("{}/none", bench.directory)) };
    assert_eq!(problem(bench.read(&none).await), FileProblem::NotFound);
}

pub async fn a_removal_follows_no_link(bench: Bench) {
    bench.make_root().await;
    bench.sh("mkdir -p root/tree/a/b root/empty; ln -s ../../../../beside root/tree/a/b/away; : >root/tree/a/x; : >root/-f").await;
    assert_eq!(problem(bench.remove(&bench.below("tree"), false).await), FileProblem::NotEmpty);
    bench.remove(&bench.below("tree"), true).await.unwrap();
    bench.remove(&bench.below("empty"), false).await.unwrap();
    bench.remove(&bench.below("-f"), false).await.unwrap();
    for link in ["out", "down", "dangling", "loop_a", "up"] {
        bench.remove(&bench.below(link), true).await.unwrap();
    }
    assert_eq!(problem(bench.remove(&bench.below("tree"), true).await), FileProblem::NotFound);
    assert_eq!(problem(bench.remove(&bench.below("."), true).await), FileProblem::InvalidPath);
    assert_eq!(bench.read(&bench.below("d/g")).await.unwrap(), b"inner");
    assert_eq!(bench.beside().await, "secret\nsecret");
}

pub async fn a_full_disk_keeps_the_old_file(bench: Bench) {
    let Some(small) = bench.small else { return };
    let path = FilePath { path: format!("{small}/file"), root: None };
    bench.write(&path, b"old").await.unwrap();
    assert_eq!(problem(bench.write(&path, &content(3 << 20)).await), FileProblem::NoSpace);
    assert_eq!(bench.read(&path).await.unwrap(), b"old");
    assert_eq!(bench.sh(&format!("ls -A {small}")).await, "file\n");
}

/// One test for each case, in a module for each way to make a bench.
#[macro_export]
macro_rules! files_conformance {
    ($($name:ident: $make:expr;)+) => {
        $(mod $name {
            use super::*;
            $crate::files_conformance! { @cases $make;
                content_of_any_size_comes_back_as_it_was a_part_is_read_by_offset_and_limit a_file_of_the_kernel_is_read
                a_write_takes_the_place_of_the_old_file a_write_follows_links
                an_abandoned_write_leaves_the_old_file_and_nothing_else nothing_is_overwritten_that_must_not_be_there
                directories_above_are_made_when_asked_for what_is_in_the_way_is_told_apart
                a_refusal_does_not_wait_for_the_content names_may_hold_anything
                an_entry_says_what_a_file_is a_large_directory_is_listed_whole links_below_a_root_do_not_lead_out_of_it
                a_removal_follows_no_link a_full_disk_keeps_the_old_file
            }
        })+
    };
    (@cases $make:expr; $($case:ident)+) => {
        $(#[tokio::test]
        async fn $case() {
            if let Some(bench) = $make.await {
                $crate::conformance::files::$case(bench).await;
            }
        })+
    };
}
