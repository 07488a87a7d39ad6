//! Which files are opened, and which are refused.

use std::os::unix::fs::PermissionsExt as _;

use errand_store::{SqliteStore, StoreError, TaskStore as _};

use crate::SqlitePlace;
use errand_store::conformance::fixtures::{all_tasks, create, owner, task};

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let place = SqlitePlace::new();
    place.store().await.close().await;
    place.execute("PRAGMA user_version = 99").unwrap();
    let before = std::fs::read(place.file()).unwrap();
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, known: 5 }), "{error:?}");
    assert_eq!(std::fs::read(place.file()).unwrap(), before);
}

#[tokio::test]
async fn a_text_file_is_refused_untouched() {
    for text in ["a", "notes of somebody\n"] {
        let place = SqlitePlace::new();
        std::fs::write(place.file(), text).unwrap();
        let error = SqliteStore::open(&place.file()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
        assert_eq!(std::fs::read_to_string(place.file()).unwrap(), text);
    }
}

#[tokio::test]
async fn a_damaged_database_is_refused_untouched() {
    let place = SqlitePlace::new();
    let bytes = [b"SQLite format 3\0".as_slice(), &[0xff; 5000]].concat();
    std::fs::write(place.file(), &bytes).unwrap();
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    assert_eq!(std::fs::read(place.file()).unwrap(), bytes);
}

#[tokio::test]
async fn another_programs_database_is_refused_untouched() {
    let place = SqlitePlace::new();
    place.execute("CREATE TABLE bookmarks (url TEXT)").unwrap();
    let before = std::fs::read(place.file()).unwrap();
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    assert_eq!(std::fs::read(place.file()).unwrap(), before);
}

#[tokio::test]
async fn a_missing_directory_is_named_in_the_error() {
    let place = SqlitePlace::new();
    let error = SqliteStore::open(&place.path().join("none/errand.sqlite")).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unwritable(cause) if cause.to_string().contains("none/errand.sqlite")),
        "{error:?}"
    );
    assert!(!error.to_string().contains("errand.sqlite"), "{error}");
}

#[tokio::test]
async fn new_database_is_accessible_only_to_its_user() {
    let place = SqlitePlace::new();
    let store = place.store().await;
    create(&store, task(&owner("a", "bot", "s"))).await;
    for entry in std::fs::read_dir(place.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_closes() {
    let place = SqlitePlace::new();
    let first = place.store().await;
    let error = SqliteStore::open(&place.file()).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::InUse { detail } if *detail == place.file().display().to_string()),
        "{error:?}"
    );
    create(&first, task(&owner("a", "bot", "s"))).await;
    first.close().await;
    assert_eq!(place.store().await.tasks(all_tasks("a")).await.unwrap().len(), 1);
}
