//! The entry point: what an exec in a sandbox runs.

use std::{path::Path, process::ExitCode};

const USAGE: &str = "usage: errand-bridge connect ROOT GENERATION\n       errand-bridge version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["version"] => {
            println!("errand-bridge {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["connect", root, generation] => match generation.parse() {
            Ok(generation) => match errand_bridge::connect::run(Path::new(root), generation) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("errand-bridge: {error}");
                    ExitCode::FAILURE
                }
            },
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
