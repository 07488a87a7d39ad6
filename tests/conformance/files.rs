//! What every implementation of file access must do. Tests only the contract; [`files_conformance`] makes one test of each case.

#[path = "files/bench.rs"]
pub mod bench;
#[path = "files/content.rs"]
pub mod content;
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
                content: content_of_any_size_comes_back_as_it_was, a_part_is_read_by_offset_and_limit, a_file_of_the_kernel_is_read, a_write_takes_the_place_of_the_old_file, a_write_follows_links, an_abandoned_write_leaves_the_old_file_and_nothing_else, a_full_disk_keeps_the_old_file;
                refusals: nothing_is_overwritten_that_must_not_be_there, directories_above_are_made_when_asked_for, what_is_in_the_way_is_told_apart, a_refusal_does_not_wait_for_the_content;
                entries: names_may_hold_anything, an_entry_says_what_a_file_is, a_large_directory_is_listed_whole, links_below_a_root_do_not_lead_out_of_it, a_removal_follows_no_link;
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
