//! What every implementation of file access must do. Tests only the contract; [`files_conformance`] makes one test of each case.

#[path = "files/bench.rs"]
pub mod bench;
#[path = "files/content.rs"]
pub mod content;
#[path = "files/directories.rs"]
pub mod directories;
#[path = "files/entries.rs"]
pub mod entries;
#[path = "files/refusals.rs"]
pub mod refusals;

pub use bench::{Bench, Shell};

/// One test per case, in one module per kind of bench.
#[macro_export]
macro_rules! files_conformance {
    ($($name:ident: $make:expr;)+) => {
        $(mod $name {
            use super::*;
            $crate::files_conformance! { @cases $make;
                content: content_of_any_size_is_unchanged, part_is_read_by_offset_and_limit, a_file_of_the_kernel_is_read, write_replaces_the_old_file, a_write_follows_links, abandoned_write_leaves_only_the_old_file, a_full_disk_keeps_the_old_file;
                refusals: existing_file_is_kept_when_overwriting_is_forbidden, directories_above_are_made_when_asked_for, file_problems_are_distinguished, refusal_does_not_wait_for_the_content;
                directories: directories_are_made_with_their_mode, files_and_directories_are_renamed;
                entries: names_may_hold_anything, entry_describes_the_file, large_directory_is_listed_completely, links_below_a_root_never_leave_it, a_removal_follows_no_link;
            }
        })+
    };
    (@cases $make:expr; $($module:ident: $($case:ident),+;)+) => {
        $($(#[tokio::test]
        async fn $case() {
            if let Some(bench) = $make.await {
                $crate::conformance::files::$module::$case(bench).await;
            }
        })+)+
    };
}
