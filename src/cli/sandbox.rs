//! `errand sandbox`: lists, makes, adopts, stops and removes sandboxes.

use std::time::{Duration, SystemTime};

use super::{
    args::{EnsureArgs, SandboxAction},
    connection::Connection,
    console::Console,
    error::CliError,
    exit_code,
    table::{Cell, Colour, Table},
    text,
};
use errand_proto::v1::{
    AdoptSandboxRequest, DeleteSandboxRequest, EnsureSandboxRequest, ListActiveBotsRequest, ListSandboxesRequest,
    Sandbox, SandboxSpec, SandboxState, StopSandboxRequest,
};

/// How many sandboxes are requested at a time.
const PAGE: i32 = 100;

/// Runs a subcommand of `errand sandbox`.
pub(super) async fn sandbox(
    action: SandboxAction,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let mut client = connection.sandboxes();
    let changed = match action {
        SandboxAction::Ls => return list(connection, console).await,
        SandboxAction::Active { max_age } => return active(max_age, connection, console).await,
        SandboxAction::Rm(bot) => {
            let request = DeleteSandboxRequest { bot_id: bot.bot.clone() };
            let answer = client.delete_sandbox(request).await?.into_inner();
            console.each(&[answer], |_| format!("removed the sandbox of {}", bot.bot)).await?;
            return Ok(exit_code::SUCCESS);
        }
        SandboxAction::Ensure(args) => client.ensure_sandbox(ensure_request(*args)?).await?.into_inner().sandbox,
        SandboxAction::Adopt { bot, container } => {
            client.adopt_sandbox(AdoptSandboxRequest { bot_id: bot.bot, container }).await?.into_inner().sandbox
        }
        SandboxAction::Stop(bot) => {
            client.stop_sandbox(StopSandboxRequest { bot_id: bot.bot }).await?.into_inner().sandbox
        }
    };
    show(&[changed.unwrap_or_default()], console).await
}

async fn active(max_age: Option<Duration>, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut client = connection.sandboxes();
    let mut bots = Vec::new();
    let mut page_token = String::new();
    loop {
        let max_age = max_age.map(text::wire_duration);
        let request = ListActiveBotsRequest { max_age, page_size: PAGE, page_token };
        let page = client.list_active_bots(request).await?.into_inner();
        bots.extend(page.bots);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if console.is_json() {
        console.each(&bots, |_| String::new()).await?;
    } else {
        let now = SystemTime::now();
        let mut table = Table::new(&["BOT", "TASKS", "OLDEST", "CALLS"]);
        for bot in bots {
            let oldest = bot.oldest_task_at.map(|time| text::span_text(text::wire_time(Some(time)), now));
            let (tasks, calls) = (bot.unfinished_tasks.to_string(), bot.open_calls.to_string());
            table.row(vec![bot.bot_id.into(), tasks.into(), oldest.unwrap_or_default().into(), calls.into()]);
        }
        console.table(&table).await?;
    }
    Ok(exit_code::SUCCESS)
}

async fn list(connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut client = connection.sandboxes();
    let mut sandboxes = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client.list_sandboxes(ListSandboxesRequest { page_size: PAGE, page_token }).await?.into_inner();
        sandboxes.extend(page.sandboxes);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return show(&sandboxes, console).await;
        }
    }
}

async fn show(sandboxes: &[Sandbox], console: &mut Console) -> Result<u8, CliError> {
    if console.is_json() {
        console.each(sandboxes, |_| String::new()).await?;
    } else {
        let now = SystemTime::now();
        let mut table = Table::new(&["BOT", "STATE", "CONTAINER", "MEMORY", "CPUS", "ADOPTED", "AGE", "IMAGE"]);
        for sandbox in sandboxes {
            table.row(row(sandbox, now));
        }
        console.table(&table).await?;
    }
    Ok(exit_code::SUCCESS)
}

fn row(sandbox: &Sandbox, now: SystemTime) -> Vec<Cell> {
    let spec = sandbox.spec.clone().unwrap_or_default();
    let colour = match sandbox.state() {
        SandboxState::Running => Some(Colour::Good),
        SandboxState::Stopped => Some(Colour::Odd),
        SandboxState::Gone | SandboxState::Unknown => Some(Colour::Bad),
        SandboxState::Unspecified => None,
    };
    vec![
        sandbox.bot_id.as_str().into(),
        Cell::coloured(&text::state_name(sandbox.state), colour),
        sandbox.container_name.as_str().into(),
        limit(spec.memory_bytes > 0, text::bytes_text(spec.memory_bytes)),
        limit(spec.cpus > 0.0, spec.cpus.to_string()),
        if sandbox.adopted { "yes" } else { "no" }.into(),
        text::span_text(text::wire_time(sandbox.created_at), now).into(),
        spec.image.into(),
    ]
}

/// A limit, or `none`: an adopted container may have no limit.
fn limit(is_set: bool, text: String) -> Cell {
    if is_set { text.into() } else { "none".into() }
}

/// Without arguments, the specification stays unset, and any existing sandbox satisfies it.
fn ensure_request(args: EnsureArgs) -> Result<EnsureSandboxRequest, CliError> {
    let env = text::unique_pairs(args.env)
        .map_err(|name| CliError::Usage(format!("--env: {name} is given more than once")))?;
    let spec = SandboxSpec {
        image: args.image.unwrap_or_default(),
        memory_bytes: args.memory.unwrap_or_default(),
        cpus: args.cpus.unwrap_or_default(),
        pids_limit: args.pids.unwrap_or_default(),
        network_mode: args.network.unwrap_or_default(),
        writable_root: args.writable_root,
        user: args.user.unwrap_or_default(),
        env,
        idle_stop_after: args.idle_stop.map(text::wire_duration),
    };
    let spec = (spec != SandboxSpec::default()).then_some(spec);
    Ok(EnsureSandboxRequest { bot_id: args.bot.bot, spec })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn ensure(words: &[&str]) -> EnsureSandboxRequest {
        let cli = Cli::try_parse_from([&["errand", "sandbox", "ensure"], words].concat()).unwrap();
        let Command::Sandbox(args) = cli.command else { unreachable!("the words say sandbox") };
        let SandboxAction::Ensure(args) = args.action else { unreachable!("the words say ensure") };
        ensure_request(*args).unwrap()
    }

    #[test]
    fn ensure_without_arguments_leaves_the_specification_open() {
        assert_eq!(ensure(&[]), EnsureSandboxRequest { bot_id: "default".to_owned(), spec: None });
    }

    #[test]
    fn ensure_sends_only_given_options() {
        let spec = ensure(&["--memory", "512MiB", "--writable-root", "--env", "A=b"]).spec.unwrap();
        let expected = SandboxSpec {
            memory_bytes: 512 << 20,
            writable_root: true,
            env: [("A".to_owned(), "b".to_owned())].into(),
            ..SandboxSpec::default()
        };
        assert_eq!(spec, expected);
    }

    #[test]
    fn adopted_container_without_limits_is_marked() {
        let sandbox = Sandbox { bot_id: "b".to_owned(), adopted: true, state: 1, ..Sandbox::default() };
        let mut table = Table::new(&["BOT", "STATE", "CONTAINER", "MEMORY", "CPUS", "ADOPTED", "AGE", "IMAGE"]);
        table.row(row(&sandbox, SystemTime::now()));
        let rendered = table.render(false);
        let cells: Vec<&str> = rendered.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(cells, ["b", "running", "none", "none", "yes"]);
    }
}
