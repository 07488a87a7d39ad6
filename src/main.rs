//! The `errand` program: the server, and the command line that speaks to it.

use std::process::ExitCode;

use errand::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    ExitCode::from(run(cli))
}

fn run(cli: Cli) -> u8 {
    let runtime = match tokio::runtime::Runtime::new() {
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
