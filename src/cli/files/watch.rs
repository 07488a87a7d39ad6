//! `errand files watch`: a line for each change.

use super::place::Remote;
use crate::cli::{connection::Connection, console::Console, error::CliError, exit_code, text};
use errand_proto::v1::{FileChange, FileChangeKind, WatchFilesRequest};

/// The most characters of a path.
const PATH: usize = 4096;

pub(super) async fn watch(
    directory: Remote,
    recursive: bool,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let Remote { bot, path } = directory;
    let request = WatchFilesRequest { bot_id: bot, path, recursive, ..WatchFilesRequest::default() };
    let mut changes = connection.sandboxes().watch_files(request).await?.into_inner();
    while let Some(message) = changes.message().await? {
        if console.is_json() {
            console.message(&message).await?;
        } else if let Some(change) = message.change {
            console.line(&line(&change)).await?;
        }
    }
    Ok(exit_code::SUCCESS)
}

fn line(change: &FileChange) -> String {
    let slash = if change.is_directory { "/" } else { "" };
    let path = format!("{}{slash}", text::one_line(&change.path, PATH));
    match change.kind() {
        FileChangeKind::Created => format!("created   {path}"),
        FileChangeKind::Modified => format!("modified  {path}"),
        FileChangeKind::Removed => format!("removed   {path}"),
        FileChangeKind::Renamed => format!("renamed   {} -> {path}", text::one_line(&change.old_path, PATH)),
        FileChangeKind::Overflow => "overflow  changes were lost: look at the directory".to_owned(),
        FileChangeKind::Unspecified => format!("changed   {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_is_one_line_without_control_characters() {
        let change = FileChange {
            kind: FileChangeKind::Renamed.into(),
            path: "new\n\u{1b}[2J".to_owned(),
            old_path: "old".to_owned(),
            is_directory: true,
            ..FileChange::default()
        };
        let line = line(&change);
        assert!(line.starts_with("renamed   old -> new") && line.ends_with('/'), "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
