//! The entry point of the guest binary: the processes inside a sandbox, and the launcher of embedded sandboxes.

use std::{io, path::Path, process::ExitCode};

const USAGE: &str = "usage: errand-bridge connect ROOT GENERATION\n       errand-bridge init LIFE [PROCESSES]\n       \
errand-bridge launch REQUEST LIFE\n       errand-bridge write PATH SIZE MODE\n       errand-bridge fence [allow=RANGE|refuse=RANGE]...\n       \
errand-bridge idle\n       errand-bridge version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["version"] => {
            println!("errand-bridge {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["connect", root, generation] => match generation.parse() {
            Ok(generation) => connected(errand_guest::connect::run(Path::new(root), generation)),
            Err(_) => usage(),
        },
        // The argument identifies this life of the sandbox in process listings; the program ignores it.
        ["init", _life] => said(errand_guest::init::run(None)),
        ["init", _life, processes] => match processes.parse() {
            Ok(processes) => said(errand_guest::init::run(Some(processes))),
            Err(_) => usage(),
        },
        ["launch", request, _life] => said(errand_guest::launch::run(Path::new(request)).map(|_| ())),
        ["write", path, size, mode] => match (size.parse(), u32::from_str_radix(mode, 8)) {
            (Ok(size), Ok(mode)) => said(errand_guest::put::run(Path::new(path), size, mode)),
            _ => usage(),
        },
        ["fence", ref words @ ..] => said(errand_guest::fence::run(words)),
        ["idle"] => errand_guest::idle::run(),
        _ => usage(),
    }
}

/// The server takes a message on stderr as the reason why no bridge process can run in the sandbox. A timeout prints none: the bridge
/// process is only slow or stopped, and the server tries again.
fn connected(result: io::Result<()>) -> ExitCode {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => ExitCode::FAILURE,
        result => said(result),
    }
}

fn said<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("errand-bridge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
