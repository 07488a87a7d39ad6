//! The `errand` program: the server, and the command line that talks to it.

use std::{io, process::ExitCode, thread};

use errand::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    ExitCode::from(run(cli))
}

/// Gives half of the cores to the server and leaves the rest to what it runs: waking a worker on another core costs more than most of the
/// work that the worker would take over.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread().worker_threads(cores.div_ceil(2)).enable_all().build()
}

fn run(cli: Cli) -> u8 {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("errand: cannot start: {error}");
            return cli::exit_code::FAILURE;
        }
    };
    let code = runtime.block_on(cli::run(cli));
    // Does not wait for blocked writes: a terminal that nobody reads must not delay the exit.
    runtime.shutdown_background();
    code
}
