//! `errand files mkdir` and `mv`.

use super::place::{Place, Remote};
use crate::cli::{connection::Connection, console::Console, error::CliError, exit_code};
use errand_proto::v1::{MakeDirectoryRequest, RenameFileRequest};

pub(super) async fn make(
    directories: Vec<Remote>,
    mode: Option<u32>,
    make_parents: bool,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let mut client = connection.sandboxes();
    for Remote { bot, path } in directories {
        let mode = mode.unwrap_or_default();
        let request = MakeDirectoryRequest { bot_id: bot, path, mode, make_parents, ..Default::default() };
        let answer = client.make_directory(request).await?.into_inner();
        // Success is silent, as with mkdir.
        if console.is_json() {
            console.message(&answer).await?;
        }
    }
    Ok(exit_code::SUCCESS)
}

pub(super) async fn rename(
    from: Remote,
    to: Place,
    must_not_exist: bool,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let new_path = match to {
        Place::Sandbox(to) if to.bot == from.bot => to.path,
        Place::Here(to) if to.is_absolute() => to.display().to_string(),
        Place::Sandbox(_) | Place::Here(_) | Place::Standard => {
            return Err(CliError::Usage("mv: the new path must be in the same sandbox: BOT:/PATH or /PATH".to_owned()));
        }
    };
    let request =
        RenameFileRequest { bot_id: from.bot, path: from.path, new_path, must_not_exist, ..Default::default() };
    let answer = connection.sandboxes().rename_file(request).await?.into_inner();
    if console.is_json() {
        console.message(&answer).await?;
    }
    Ok(exit_code::SUCCESS)
}
