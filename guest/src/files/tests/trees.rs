//! Trees as tar streams.

use std::collections::BTreeMap;

use tar::{Builder, EntryType, Header};

use super::*;

/// An archive with one file of this name, exactly as given.
pub(super) fn one_file(name: &str) -> Vec<u8> {
    archive(&[(EntryType::Regular, name, "", "content")])
}

/// An archive with these entries: kind, path, target of a link, content. Paths are written as they are.
fn archive(entries: &[(EntryType, &str, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, target, content) in entries {
        let mut head = Header::new_gnu();
        head.set_entry_type(*kind);
        head.set_size(content.len() as u64);
        head.set_mode(0o640);
        head.set_mtime(1_000_000_000);
        head.set_link_name_literal(target).unwrap();
        let name = path.as_bytes();
        let length = name.len().min(100);
        head.as_gnu_mut().unwrap().name[..length].copy_from_slice(&name[..length]);
        head.set_cksum();
        builder.append(&head, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn whole() -> WriteTreeHead {
    WriteTreeHead::default()
}

fn merging() -> WriteTreeHead {
    WriteTreeHead { merge: true, ..whole() }
}

impl Bench {
    async fn pack(&self, path: &str) -> Result<Vec<u8>, Status> {
        let request = ReadTreeRequest { path: self.path(path) };
        let mut parts = self.files.read_tree(Request::new(request)).await?.into_inner();
        let first = parts.next().await.unwrap()?.part.unwrap();
        assert!(matches!(first, read_tree_response::Part::Entry(_)));
        let mut content = Vec::new();
        while let Some(part) = parts.next().await {
            let Some(read_tree_response::Part::Data(data)) = part?.part else { panic!("a second entry") };
            assert!(!data.is_empty() && data.len() <= PIECE);
            content.extend_from_slice(&data);
        }
        Ok(content)
    }
}

impl Bench {
    /// Waits until the parts of refused archives are removed: that happens in the background.
    pub(super) async fn nothing_is_left(&self) {
        let gone = async {
            while self.parts_left() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("the parts are removed");
    }
}

/// Every path of an archive with its kind, mode and content, as another reader sees them.
fn listed(archive: &[u8]) -> BTreeMap<String, (EntryType, u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if let Some(target) = entry.link_name_bytes() {
            content = target.into_owned();
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        (path, (entry.header().entry_type(), entry.header().mode().unwrap(), content))
    });
    entries.collect()
}

#[tokio::test]
async fn tree_survives_packing_and_unpacking() {
    for way in WAYS {
        let bench = Bench::new(way);
        let long = format!("d/{}/{}", "a".repeat(90), "b".repeat(200));
        fs::create_dir_all(bench.at(&long)).unwrap();
        let large: Vec<u8> = (0..3 * PIECE + 7).map(|index| index as u8).collect();
        fs::write(bench.at(&long).join("large"), &large).unwrap();
        fs::write(bench.at("d/e/empty"), "").unwrap();
        fs::set_permissions(bench.at("d/g"), fs::Permissions::from_mode(0o750)).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            bench.at("d/pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();

        let packed = bench.pack("d").await.unwrap();
        let paths = listed(&packed);
        assert_eq!(paths["g"], (EntryType::Regular, 0o750, b"inner".to_vec()));
        assert_eq!(paths["e/back"], (EntryType::Symlink, 0o777, b"../../f".to_vec()));
        assert!(paths[&format!("{}/large", &long[2..])].2 == large);
        assert!(!paths.contains_key("pipe"), "only files, directories and links");

        let written = bench.unpack("copy", &packed, &whole()).unwrap();
        assert_eq!((written.unpacked as usize, written.left_out), (paths.len() - 1, 0));
        assert_eq!(&written.entry.unwrap().name[..], b"copy");
        assert_eq!(listed(&bench.pack("copy").await.unwrap()), paths);
        assert_eq!(problem(bench.pack("f").await), FileProblem::NotADirectory);
        assert_eq!(problem(bench.pack("none").await), FileProblem::NotFound);
        assert_eq!(problem(bench.pack("out").await), FileProblem::OutsideRoot);
        bench.nothing_is_left().await;
    }
}

#[tokio::test]
async fn existing_directory_is_merged_only_on_request() {
    let bench = Bench::new(Way::Kernel);
    let entries = [
        (EntryType::Directory, "e/", "", ""),
        (EntryType::Regular, "g", "", "replaced"),
        (EntryType::Regular, "e/new/x", "", "added"),
    ];
    let archive = archive(&entries);
    assert_eq!(problem(bench.unpack("d", &archive, &whole())), FileProblem::AlreadyExists);
    assert_eq!(fs::read(bench.at("d/g")).unwrap(), b"inner");
    let written = bench.unpack("d", &archive, &merging()).unwrap();
    assert_eq!(written.unpacked, 3);
    assert_eq!(fs::read(bench.at("d/g")).unwrap(), b"replaced");
    assert_eq!(fs::read(bench.at("d/e/new/x")).unwrap(), b"added");
    assert!(bench.at("d/e/back").symlink_metadata().is_ok(), "what the archive lacks stays");
    // Through a link to a directory below the root.
    assert_eq!(bench.unpack("down", &archive, &merging()).unwrap().unpacked, 3);
    assert_eq!(problem(bench.unpack("f", &archive, &merging())), FileProblem::NotADirectory);
    assert_eq!(problem(bench.unpack("none/x", &archive, &whole())), FileProblem::NotFound);
    bench.unpack("none/x", &archive, &WriteTreeHead { make_parents: true, ..whole() }).unwrap();
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn incomplete_or_hostile_archive_changes_nothing() {
    for way in WAYS {
        let bench = Bench::new(way);
        let good = one_file("x");
        let hostile = [
            archive(&[(EntryType::Regular, "/tmp/errand-absolute", "", "x")]),
            archive(&[(EntryType::Regular, "a/../../beside/secret", "", "x")]),
            archive(&[(EntryType::Symlink, "l", "../../beside", ""), (EntryType::Regular, "l/secret", "", "x")]),
            archive(&[
                (EntryType::Symlink, "l", "../beside/secret", ""),
                (EntryType::Link, "h", "../beside/secret", ""),
            ]),
            archive(&[(EntryType::Regular, "a", "", "x"), (EntryType::Regular, "a/b", "", "x")]),
            good[..good.len() - 1024].to_vec(),
            good[..700].to_vec(),
            vec![b'x'; 5000],
            Vec::new(),
        ];
        for (number, archive) in hostile.iter().enumerate() {
            let refused = problem(bench.unpack("new", archive, &whole()));
            let expected = [FileProblem::InvalidArchive, FileProblem::NotADirectory, FileProblem::TooManyLinks];
            assert!(expected.contains(&refused), "{number}: {refused:?}");
            assert!(!bench.at("new").exists(), "{number}");
        }
        bench.nothing_is_left().await;
        assert_eq!(bench.beside(), [("secret".to_owned(), "secret".to_owned())]);
        // A link may point anywhere, as any command could make it: it is not followed while unpacking.
        let linked = archive(&[(EntryType::Symlink, "l", "/etc", ""), (EntryType::Regular, "l", "", "a file now")]);
        bench.unpack("new", &linked, &whole()).unwrap();
        assert_eq!(fs::read(bench.at("new/l")).unwrap(), b"a file now");
    }
}

#[tokio::test]
async fn links_modes_and_times_are_unpacked() {
    let bench = Bench::new(Way::Kernel);
    let entries = [
        (EntryType::Regular, "./a", "", "content"),
        (EntryType::Link, "b", "a", ""),
        (EntryType::Symlink, "c", "a", ""),
        (EntryType::Fifo, "pipe", "", ""),
        (EntryType::Directory, "locked", "", ""),
        (EntryType::Regular, "locked/x", "", ""),
    ];
    let written = bench.unpack("new", &archive(&entries), &whole()).unwrap();
    assert_eq!((written.unpacked, written.left_out), (5, 1));
    let (a, b) = (fs::metadata(bench.at("new/a")).unwrap(), fs::metadata(bench.at("new/b")).unwrap());
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&a), std::os::unix::fs::MetadataExt::ino(&b));
    assert_eq!(a.permissions().mode() & 0o7777, 0o640);
    assert_eq!(a.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_000_000_000);
    assert_eq!(fs::read_link(bench.at("new/c")).unwrap(), Path::new("a"));
    assert_eq!(fs::metadata(bench.at("new/locked")).unwrap().permissions().mode() & 0o7777, 0o740);
}

#[tokio::test]
async fn directory_too_deep_is_refused() {
    let bench = Bench::new(Way::Kernel);
    let deep = vec!["n"; tree::DEPTH_LIMIT + 1].join("/");
    fs::create_dir_all(bench.at("d").join(&deep)).unwrap();
    assert_eq!(problem(bench.pack("d").await), FileProblem::InvalidPath);
    let name = format!("{deep}/x");
    let mut builder = Builder::new(Vec::new());
    let mut head = Header::new_gnu();
    head.set_size(0);
    head.set_mode(0o644);
    head.set_mtime(0);
    builder.append_data(&mut head, &name, &b""[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    assert_eq!(problem(bench.unpack("new", &archive, &whole())), FileProblem::InvalidPath);
}
