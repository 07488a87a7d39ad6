//! What is refused, and that a refused call changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use errand_task::{FilePath, FileProblem, WriteOptions};
use futures_util::stream;

use super::bench::{Bench, new, parents, problem};
use crate::support::wait::soon;

pub async fn existing_file_is_kept_when_overwriting_is_forbidden(bench: Bench) {
    bench.sh("printf old >file; mkdir d; ln -s nowhere dangling").await;
    for name in ["file", "d", "dangling"] {
        let result = bench.write_as(&bench.at(name), new(), b"x").await;
        assert_eq!(problem(result), FileProblem::AlreadyExists, "{name}");
    }
    bench.write_as(&bench.at("fresh"), new(), b"x").await.unwrap();
    assert_eq!(bench.names(&bench.at("")).await, ["d", "dangling", "file", "fresh"]);
    // Another writer creates the file first.
    let late = bench.at("late");
    let shell = Arc::clone(&bench.shell);
    let script = format!("printf theirs >'{}'", late.path);
    let content = stream::once(async move {
        shell.run(&script).await;
        Ok(Bytes::from_static(b"ours"))
    });
    let result = bench.files.write_file(&late, new(), Box::pin(content)).await;
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

pub async fn file_problems_are_distinguished(bench: Bench) {
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
    // A sandbox may write neither directory, if it exists at all.
    let system = bench.sh("if [ -d /sys ]; then echo /sys; else echo /usr; fi").await;
    let system = FilePath { path: format!("{}/errand-test", system.trim()), root: None };
    assert_eq!(problem(bench.write(&system, b"x").await), FileProblem::NotPermitted);
    for (path, root) in [("relative", None), ("/absolute", Some("/tmp")), ("a", Some("tmp")), ("a\0b", Some("/tmp"))] {
        let path = FilePath { path: path.to_owned(), root: root.map(str::to_owned) };
        assert_eq!(problem(bench.stat(&path, true).await), FileProblem::InvalidPath, "{path:?}");
    }
    assert_eq!(bench.names(&at("")).await, ["d", "file", "loop", "pipe"]);
}

pub async fn refusal_does_not_wait_for_the_content(bench: Bench) {
    bench.sh("mkdir d").await;
    let endless = || Box::pin(stream::repeat_with(|| Ok(Bytes::from(vec![0; 100_000]))));
    for (path, options, expected) in [
        (bench.at("d"), WriteOptions::default(), FileProblem::IsADirectory),
        (bench.at("none/x"), WriteOptions::default(), FileProblem::NotFound),
        (bench.at("d"), new(), FileProblem::AlreadyExists),
    ] {
        let writing = bench.files.write_file(&path, options, endless());
        assert_eq!(problem(soon("the refusal comes", writing).await), expected);
    }
}
