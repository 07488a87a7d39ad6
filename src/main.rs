//! The `errand` program: the server, and the command line that speaks to it.

use std::{io, process::ExitCode, thread};

use errand::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    ExitCode::from(run(cli))
}

/// Half of the cores work for the server, the rest is for what it runs: a worker that is woken on another core costs more than most of the
/// work that it takes over.
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
    // A write to a terminal that nobody reads must not hold the exit up.
    runtime.shutdown_background();
    code
}
