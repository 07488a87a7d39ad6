//! `errand files`: copies, lists, describes, renames, removes and watches files in sandboxes.

mod change;
mod copy;
pub(super) mod place;
mod tree;
mod watch;

use super::{
    args::FilesAction,
    connection::Connection,
    console::Console,
    error::CliError,
    exit_code,
    table::{Cell, Colour, Table},
    text,
};
use errand_proto::v1::{FileEntry, FileKind, ListDirectoryRequest, RemoveFileRequest, StatFileRequest};
use place::Remote;

/// How many entries are requested at a time.
const PAGE: i32 = 1000;

/// Runs a subcommand of `errand files`.
pub(super) async fn files(action: FilesAction, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    match action {
        FilesAction::Cp(args) if args.recursive => tree::copy(args, connection, console).await,
        FilesAction::Cp(args) => copy::copy(args, connection, console).await,
        FilesAction::Mkdir { parents, mode, directories } => {
            change::make(directories, mode, parents, connection, console).await
        }
        FilesAction::Mv { no_clobber, from, to } => change::rename(from, to, no_clobber, connection, console).await,
        FilesAction::Watch { recursive, directory } => watch::watch(directory, recursive, connection, console).await,
        FilesAction::Ls { directory } => list(directory, connection, console).await,
        FilesAction::Stat { follow, files } => stat(files, follow, connection, console).await,
        FilesAction::Rm { recursive, files } => remove(files, recursive, connection, console).await,
    }
}

async fn list(directory: Remote, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut client = connection.sandboxes();
    let mut entries = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListDirectoryRequest {
            bot_id: directory.bot.clone(),
            path: directory.path.clone(),
            page_size: PAGE,
            page_token,
            ..ListDirectoryRequest::default()
        };
        let page = client.list_directory(request).await?.into_inner();
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return show(&entries, console).await;
        }
    }
}

async fn stat(
    files: Vec<Remote>,
    follow: bool,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let mut client = connection.sandboxes();
    let mut entries = Vec::new();
    for file in files {
        let request = StatFileRequest { bot_id: file.bot, path: file.path, follow, ..StatFileRequest::default() };
        entries.extend(client.stat_file(request).await?.into_inner().entry);
    }
    show(&entries, console).await
}

async fn remove(
    files: Vec<Remote>,
    recursive: bool,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let mut client = connection.sandboxes();
    for file in files {
        let request =
            RemoveFileRequest { bot_id: file.bot, path: file.path, recursive, ..RemoveFileRequest::default() };
        let answer = client.remove_file(request).await?.into_inner();
        // Success is silent, as with rm.
        if console.is_json() {
            console.message(&answer).await?;
        }
    }
    Ok(exit_code::SUCCESS)
}

async fn show(entries: &[FileEntry], console: &mut Console) -> Result<u8, CliError> {
    if console.is_json() {
        console.each(entries, |_| String::new()).await?;
    } else {
        let mut table = Table::new(&["MODE", "OWNER", "SIZE", "MODIFIED", "NAME"]);
        for entry in entries {
            table.row(row(entry));
        }
        console.table(&table).await?;
    }
    Ok(exit_code::SUCCESS)
}

fn row(entry: &FileEntry) -> Vec<Cell> {
    let colour = match entry.kind() {
        FileKind::Directory => Some(Colour::Live),
        FileKind::Symlink => Some(Colour::Odd),
        FileKind::File | FileKind::Other | FileKind::Unspecified => None,
    };
    let name = match entry.kind() {
        FileKind::Directory => format!("{}/", entry.name.trim_end_matches('/')),
        FileKind::Symlink => format!("{} -> {}", entry.name, entry.link_target),
        FileKind::File | FileKind::Other | FileKind::Unspecified => entry.name.clone(),
    };
    vec![
        mode(entry).into(),
        format!("{}:{}", entry.uid, entry.gid).into(),
        text::bytes_text(entry.size_bytes).into(),
        text::time_text(entry.modified_at).into(),
        Cell::coloured(&name, colour),
    ]
}

/// Permissions as `ls` writes them, without setuid, setgid and sticky bits.
fn mode(entry: &FileEntry) -> String {
    let kind = match entry.kind() {
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Other => '?',
        FileKind::File | FileKind::Unspecified => '-',
    };
    let bit = |shift: u32, letter| if entry.mode >> shift & 1 == 1 { letter } else { '-' };
    let letters = (0..9).rev().map(|shift| bit(shift, ['x', 'w', 'r'][(shift % 3) as usize]));
    std::iter::once(kind).chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_printed_like_ls() {
        let entry = FileEntry {
            name: "run\n".to_owned(),
            kind: FileKind::Symlink.into(),
            mode: 0o751,
            uid: 1,
            gid: 2,
            size_bytes: 2048,
            link_target: "bin/run".to_owned(),
            ..FileEntry::default()
        };
        let mut table = Table::new(&["MODE", "OWNER", "SIZE", "MODIFIED", "NAME"]);
        table.row(row(&entry));
        let line = table.render(false).lines().last().map(str::to_owned);
        assert_eq!(line.as_deref(), Some("lrwxr-x--x  1:2    2 KiB            run  -> bin/run"));
    }
}
