//! Names, descriptions, links and removals.

use std::time::{Duration, SystemTime};

use errand_task::{FileEntry, FileKind, FilePath, FileProblem};

use super::bench::{Bench, problem};

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
    // Names that are not valid text can be listed, though not requested; the same holds for links with such names.
    bench.sh("name=$(printf 'n\\377\\nm'); : >\"$name\"; ln -s \"$name\" \"l$name\"").await;
    let listed = bench.list(&bench.at("")).await.unwrap();
    assert_eq!(listed.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>(), [&b"ln\xff\nm"[..], b"n\xff\nm"]);
    assert_eq!(&listed[0].link_target[..], b"n\xff\nm");
}

pub async fn entry_describes_the_file(bench: Bench) {
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

pub async fn large_directory_is_listed_completely(bench: Bench) {
    bench.sh("mkdir many empty; cd many; i=0; while [ $i -lt 5000 ]; do : >f$i; i=$((i + 1)); done; ln -s f1 l").await;
    let listed = bench.list(&bench.at("many")).await.unwrap();
    assert_eq!(listed.len(), 5001);
    assert!(listed.iter().all(|entry| entry.kind == FileKind::File || &entry.link_target[..] == b"f1"));
    assert!(bench.list(&bench.at("empty")).await.unwrap().is_empty());
    // A listing that its client does not read to the end blocks no other call.
    let stream = bench.files.list_directory(&bench.at("many")).await.unwrap();
    drop(stream);
    bench.remove(&bench.at("many"), true).await.unwrap();
    assert_eq!(bench.names(&bench.at("")).await, ["empty"]);
}

pub async fn links_below_a_root_never_leave_it(bench: Bench) {
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
    // A root is trusted: links in the root's own path are followed, and the root must exist.
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
