//! Making directories and renaming files.

use errand_task::{FileKind, FileProblem};

use super::bench::{Bench, problem};

pub async fn directories_are_made_with_their_mode(bench: Bench) {
    bench.make_root().await;
    let entry = bench.make(&bench.at("new dir"), Some(0o2750), false).await.unwrap();
    assert_eq!((&entry.name[..], entry.kind, entry.mode), (&b"new dir"[..], FileKind::Directory, 0o2750));
    assert_eq!(problem(bench.make(&bench.at("new dir"), None, false).await), FileProblem::AlreadyExists);
    assert_eq!(problem(bench.make(&bench.at("a/b"), None, false).await), FileProblem::NotFound);
    assert_eq!(bench.make(&bench.at("a/b/"), None, true).await.unwrap().kind, FileKind::Directory);
    assert_eq!(bench.sh("stat -c %a a/b").await, "755\n");
    // What exists is left as it is, also behind a link.
    assert_eq!(bench.make(&bench.at("new dir"), Some(0o700), true).await.unwrap().mode, 0o2750);
    assert_eq!(bench.make(&bench.below("down"), None, true).await.unwrap().kind, FileKind::Directory);
    for name in ["f", "dangling"] {
        assert_eq!(problem(bench.make(&bench.below(name), None, true).await), FileProblem::AlreadyExists, "{name}");
    }
    assert_eq!(problem(bench.make(&bench.below("f/x"), None, true).await), FileProblem::NotADirectory);
    for name in ["out/x", "out", "../x", "up/x"] {
        assert_eq!(problem(bench.make(&bench.below(name), None, true).await), FileProblem::OutsideRoot, "{name}");
    }
    assert_eq!(bench.beside().await, "secret\nsecret");
}

pub async fn files_and_directories_are_renamed(bench: Bench) {
    bench.make_root().await;
    let entry = bench.rename(&bench.below("d"), &bench.below("moved"), true).await.unwrap();
    assert_eq!((&entry.name[..], entry.kind), (&b"moved"[..], FileKind::Directory));
    assert_eq!(bench.sh("cat root/moved/g; mkdir root/empty; printf old >root/old").await, "inner");
    for taken in ["old", "dangling", "empty"] {
        let renamed = bench.rename(&bench.below("f"), &bench.below(taken), true).await;
        assert_eq!(problem(renamed), FileProblem::AlreadyExists, "{taken}");
    }
    bench.rename(&bench.below("f"), &bench.below("old"), false).await.unwrap();
    assert_eq!(bench.sh("cat root/old").await, "file");
    // A link itself is renamed, and its target stays.
    let link = bench.rename(&bench.below("out_file"), &bench.below("moved/link"), false).await.unwrap();
    assert_eq!((link.kind, &link.link_target[..]), (FileKind::Symlink, &b"../beside/secret"[..]));
    bench.rename(&bench.below("moved/e"), &bench.below("empty"), false).await.unwrap();
    assert_eq!(bench.sh("ls -A root/empty").await, "back\n");
    for (from, to, expected) in [
        ("none", "x", FileProblem::NotFound),
        ("old", "none/x", FileProblem::NotFound),
        ("old", "moved", FileProblem::IsADirectory),
        ("moved", "old", FileProblem::NotADirectory),
        ("moved", "empty", FileProblem::NotEmpty),
        ("old/", "x", FileProblem::NotADirectory),
        ("moved", "moved/in/itself", FileProblem::NotFound),
        ("moved", "moved/itself", FileProblem::InvalidPath),
        ("old", "out/x", FileProblem::OutsideRoot),
        ("old", "../beside/x", FileProblem::OutsideRoot),
    ] {
        let renamed = bench.rename(&bench.below(from), &bench.below(to), false).await;
        assert_eq!(problem(renamed), expected, "{from} to {to}");
    }
    assert_eq!(bench.rename(&bench.below("old"), &bench.below("old"), false).await.unwrap().size, 4);
    assert_eq!(bench.beside().await, "secret\nsecret");
    if let Some(small) = bench.small {
        let other = errand_task::FilePath { path: format!("{small}/x"), root: None };
        let renamed = bench.rename(&bench.at("root/old"), &other, false).await;
        assert_eq!(problem(renamed), FileProblem::OtherFileSystem);
    }
}
