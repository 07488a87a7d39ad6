//! Reading and writing the content of files.

use std::time::Duration;

use bytes::Bytes;
use errand_bridge::{Abandoned, FileError};
use errand_task::{FileKind, FilePath, FileProblem, WriteOptions};
use futures_util::{StreamExt as _, stream};

use super::bench::{Bench, content, problem};
use crate::support::wait::eventually;

pub async fn content_of_any_size_is_unchanged(bench: Bench) {
    for size in [0, 1, 65_536, (1 << 20) - 1, 1 << 20, (3 << 20) + 7] {
        let path = bench.at("file");
        let content = content(size);
        let entry = bench.write(&path, &content).await.unwrap();
        assert_eq!((entry.size, entry.kind, &entry.name[..]), (size as u64, FileKind::File, &b"file"[..]));
        let (entry, read) = bench.read_part(&path, 0, None).await.unwrap();
        assert!(read == content, "{size} bytes");
        assert_eq!(entry.size, size as u64);
    }
    // Control characters, and lines that look like the bridge's own.
    let tricky = b"refused - no\nentry ./x//81a4/1/1/1/1/1\nend\nend 5\n\0\r\n12\n".repeat(3);
    bench.write(&bench.at("file"), &tricky).await.unwrap();
    assert_eq!(bench.read(&bench.at("file")).await.unwrap(), tricky);
    assert_eq!(bench.names(&bench.at("")).await, ["file"]);
}

pub async fn part_is_read_by_offset_and_limit(bench: Bench) {
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

pub async fn write_replaces_the_old_file(bench: Bench) {
    let path = bench.at("file");
    assert_eq!(bench.write(&path, b"one").await.unwrap().mode, 0o644);
    bench.sh("chmod 750 file").await;
    assert_eq!(bench.write(&path, b"two").await.unwrap().mode, 0o750);
    let options = WriteOptions { mode: Some(0o4701), ..WriteOptions::default() };
    assert_eq!(bench.write_as(&path, options, b"three").await.unwrap().mode, 0o4701);
    assert_eq!(bench.sh("cat file; stat -c ' %a' file; ls -A").await, "three 4701\nfile\n");
    // A process that has the old file open goes on reading the old content.
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

pub async fn abandoned_write_leaves_only_the_old_file(bench: Bench) {
    let path = bench.at("file");
    bench.write(&path, b"old").await.unwrap();
    let half = || stream::iter(vec![Ok(Bytes::from(content(2 << 20)))]);
    // The client cancels the write.
    let content = Box::pin(half().chain(stream::iter([Err(Abandoned)])));
    let result = bench.files.write_file(&path, WriteOptions::default(), content).await;
    assert!(matches!(result, Err(FileError::Abandoned)), "{result:?}");
    // The content ends too early.
    let content = Box::pin(half().chain(stream::pending()));
    let writing = bench.files.write_file(&path, WriteOptions::default(), content);
    let cut = tokio::time::timeout(Duration::from_millis(1500), writing).await;
    assert!(cut.is_err(), "it waits for the rest");
    eventually("the unfinished files are removed", async || {
        (bench.names(&bench.at("")).await == ["file"]).then_some(())
    })
    .await;
    assert_eq!(bench.read(&path).await.unwrap(), b"old");
}

pub async fn a_full_disk_keeps_the_old_file(bench: Bench) {
    let Some(small) = bench.small else { return };
    let path = FilePath { path: format!("{small}/file"), root: None };
    bench.write(&path, b"old").await.unwrap();
    assert_eq!(problem(bench.write(&path, &content(3 << 20)).await), FileProblem::NoSpace);
    assert_eq!(bench.read(&path).await.unwrap(), b"old");
    assert_eq!(bench.sh(&format!("ls -A {small}")).await, "file\n");
}
