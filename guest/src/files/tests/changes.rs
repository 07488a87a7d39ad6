//! Changes in watched directories.

use std::time::Duration;

use tokio::time::timeout;

use super::*;

type Changes = Answers<WatchFilesResponse>;

impl Bench {
    async fn watch(&self, path: &str, recursive: bool) -> Result<Changes, Status> {
        let request = WatchFilesRequest { path: self.path(path), recursive };
        let mut changes = self.files.watch_files(Request::new(request)).await?.into_inner();
        assert!(next(&mut changes).await.unwrap().unwrap().is_empty(), "the first message says that it began");
        Ok(changes)
    }
}

async fn next(changes: &mut Changes) -> Option<Result<Vec<String>, Status>> {
    let message = timeout(Duration::from_secs(10), changes.next()).await.expect("a message comes in time")?;
    Some(message.map(|message| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let told = message.changes.iter().map(|change| {
            let slash = if change.is_directory { "/" } else { "" };
            match change.kind() {
                FileChangeKind::Created => format!("+{}{slash}", text(&change.path)),
                FileChangeKind::Modified => format!("*{}{slash}", text(&change.path)),
                FileChangeKind::Removed => format!("-{}{slash}", text(&change.path)),
                FileChangeKind::Renamed => format!("{}>{}{slash}", text(&change.old_path), text(&change.path)),
                FileChangeKind::Overflow | FileChangeKind::Unspecified => "?".to_owned(),
            }
        });
        told.collect()
    }))
}

/// Reads changes until the last one is told; returns all of them.
async fn until(changes: &mut Changes, last: &str) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    while told.last().is_none_or(|told| told != last) {
        told.extend(next(changes).await.expect("the stream goes on").unwrap());
    }
    told
}

#[tokio::test]
async fn changes_in_a_directory_are_told() {
    for way in WAYS {
        let bench = Bench::new(way);
        let mut changes = bench.watch(".", false).await.unwrap();
        fs::write(bench.at("new"), "x").unwrap();
        assert_eq!(until(&mut changes, "+new").await, ["+new"]);
        fs::write(bench.at("new"), "longer").unwrap();
        assert_eq!(until(&mut changes, "*new").await, ["*new"]);
        fs::rename(bench.at("new"), bench.at("newer")).unwrap();
        fs::write(bench.at("d/unwatched"), "x").unwrap();
        fs::remove_file(bench.at("newer")).unwrap();
        assert_eq!(until(&mut changes, "-newer").await, ["new>newer", "-newer"]);
    }
}

#[tokio::test]
async fn new_and_renamed_directories_are_watched_too() {
    let bench = Bench::new(Way::Kernel);
    let mut changes = bench.watch(".", true).await.unwrap();
    fs::create_dir_all(bench.at("a/b")).unwrap();
    fs::write(bench.at("a/b/early"), "x").unwrap();
    let mut told = Vec::new();
    while !told.contains(&"+a/b/early".to_owned()) {
        told.extend(next(&mut changes).await.unwrap().unwrap());
    }
    assert!(told.contains(&"+a/".to_owned()) && told.contains(&"+a/b/".to_owned()), "{told:?}");
    fs::rename(bench.at("a"), bench.at("z")).unwrap();
    until(&mut changes, "a>z/").await;
    fs::write(bench.at("z/b/late"), "x").unwrap();
    until(&mut changes, "+z/b/late").await;
    // A directory that leaves is not watched any more.
    fs::rename(bench.at("z"), bench.outer.path().join("beside/z")).unwrap();
    until(&mut changes, "-z/").await;
    fs::write(bench.outer.path().join("beside/z/b/unseen"), "x").unwrap();
    fs::write(bench.at("f"), "seen").unwrap();
    assert_eq!(until(&mut changes, "*f").await, ["*f"]);
}

#[tokio::test]
async fn removed_directory_ends_the_watch() {
    let bench = Bench::new(Way::Kernel);
    let mut changes = bench.watch("d/e", true).await.unwrap();
    fs::remove_dir_all(bench.at("d/e")).unwrap();
    assert_eq!(until(&mut changes, "-/").await.last().unwrap(), "-/");
    assert_eq!(problem(next(&mut changes).await.unwrap()), FileProblem::NotFound);
    assert!(next(&mut changes).await.is_none());
}

#[tokio::test]
async fn unread_changes_overflow_and_say_so() {
    let bench = Bench::new(Way::Kernel);
    let mut changes = bench.watch("d", false).await.unwrap();
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    for number in 0..=limit / 2 {
        // Two events each, and never twice the same one in a row: the kernel would merge them.
        fs::write(bench.at(&format!("d/{}", number % 2)), "x").unwrap();
        fs::remove_file(bench.at(&format!("d/{}", number % 2))).unwrap();
    }
    let told = until(&mut changes, "?").await;
    assert!(told.len() > 1);
    fs::write(bench.at("d/after"), "x").unwrap();
    assert_eq!(until(&mut changes, "+after").await, ["+after"]);
}

#[tokio::test]
async fn watched_directories_are_limited() {
    let bench = Bench::new(Way::Kernel);
    for number in 0..1100 {
        fs::create_dir(bench.at(&format!("d/{number}"))).unwrap();
    }
    assert_eq!(problem(bench.watch("d", true).await.map(drop)), FileProblem::TooMany);
    assert!(bench.watch("d", false).await.is_ok());
    assert_eq!(problem(bench.watch("f", false).await.map(drop)), FileProblem::NotADirectory);
    assert_eq!(problem(bench.watch("out", false).await.map(drop)), FileProblem::OutsideRoot);
}
