//! Ids: none leads out of the directory of the task directories, and every id that the server makes has a place there.

#![no_main]

use std::path::{Component, Path};

use errand_task::TaskId;
use errand_guest::task_dir::TaskDir;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|id: &str| {
    let root = Path::new("/tmp/errand");
    if let Some(directory) = TaskDir::new(root, id) {
        let below: Vec<_> = directory.path().strip_prefix(root).expect("below the root").components().collect();
        assert_eq!(below, [Component::Normal(id.as_ref())]);
        // The bridge's own directory lies beside the task directories.
        assert!(!id.starts_with('.') && !id.contains('\0'));
    }
    if let Ok(task) = id.parse::<TaskId>() {
        assert!(TaskDir::new(root, &task.to_string()).is_some());
    }
});
