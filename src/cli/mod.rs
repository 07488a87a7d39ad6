//! The command line: a client of the public gRPC API, and the way to start the server.
//!
//! Owns the arguments, the output for people and scripts, and the exit codes. It asks the server for everything and does not know how tasks
//! are stored or run.

mod args;
mod attach;
mod connection;
mod console;
mod doctor;
mod error;
mod events;
pub mod exit_code;
mod files;
mod follow_tasks;
mod health;
mod interaction;
mod json;
mod keyboard;
mod logs;
mod notify;
mod notify_args;
mod outcome;
mod process_args;
mod ps;
mod reading;
mod run;
mod sandbox;
mod secret_env;
mod serve;
mod serve_args;
mod signal;
mod stop;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod wait;
mod watch;

use clap::Parser;

pub use args::Cli;
use args::Command;
use connection::Connection;
use console::Console;
use error::CliError;

/// Reads the arguments of the process.
///
/// # Errors
///
/// The exit code, after the help, the version or the error has been printed.
pub fn parse() -> Result<Cli, u8> {
    Cli::try_parse().map_err(|error| {
        // If the terminal is closed, there is nothing to do.
        let _ = error.print();
        if error.use_stderr() { exit_code::USAGE } else { exit_code::SUCCESS }
    })
}

/// Runs the requested command and returns the exit code.
pub async fn run(cli: Cli) -> u8 {
    let mut console = Console::of_process(cli.globals.json);
    run_on(cli, &mut console).await
}

async fn run_on(cli: Cli, console: &mut Console) -> u8 {
    match dispatch(cli, console).await {
        Ok(code) => code,
        Err(error) => {
            console.error(&error).await;
            error.exit_code()
        }
    }
}

async fn dispatch(cli: Cli, console: &mut Console) -> Result<u8, CliError> {
    let globals = cli.globals;
    let command = match cli.command {
        Command::Serve(args) => return serve::serve(args).await,
        Command::Doctor(args) => return doctor::doctor(args, console).await,
        Command::Health => return health::health(&globals, console).await,
        command => command,
    };
    let connection = Connection::open(&globals).await?;
    match command {
        Command::Run(args) => run::run(args, &connection, console).await,
        Command::Attach(args) => attach::attach(args, &connection, console).await,
        Command::Ps(args) => ps::ps(args, &connection, console).await,
        Command::Logs(args) => logs::logs(args, &connection, console).await,
        Command::Wait(args) => wait::wait(args, &connection, console).await,
        Command::Signal(args) => signal::signal(args, &connection, console).await,
        Command::Notify(args) => notify::notify(args, &connection, console).await,
        Command::Watch(args) => watch::watch(args, &connection, console).await,
        Command::Stop(args) => stop::stop(args, &connection, console).await,
        Command::Events(args) => events::events(args, &connection, console).await,
        Command::Sandbox(args) => sandbox::sandbox(args.action, &connection, console).await,
        Command::Files(args) => files::files(args.action, &connection, console).await,
        Command::Serve(_) | Command::Doctor(_) | Command::Health => unreachable!("handled above, without a connection"),
    }
}
