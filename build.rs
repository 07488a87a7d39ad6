//! Builds the guest, the program that the server puts into sandboxes, so that a build needs nothing but cargo.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Static, and at a fixed address: it runs in any image, and its pages are shared by all of its processes.
const GUEST_FLAGS: &str = "-Ctarget-feature=+crt-static -Crelocation-model=static";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    build_guest(&out)
}

/// Builds the guest with a cargo of its own: it has other flags and other profiles than the server.
fn build_guest(out: &Path) -> Result<(), Box<dyn Error>> {
    for path in [
        "guest",
        "crates/os",
        "crates/proto",
        "crates/reading",
        "crates/task",
        "crates/watching",
        "proto",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo:rerun-if-changed={path}");
    }
    let target = env::var("TARGET")?;
    let profile = if env::var("PROFILE")? == "release" { "bridge" } else { "bridge-dev" };
    // OUT_DIR is TARGET_DIR/PROFILE/build/PACKAGE/out.
    let target_dir = out.ancestors().nth(4).ok_or("OUT_DIR is not below a target directory")?.join("bridge");
    let mut cargo = Command::new(env::var("CARGO")?);
    // What the outer cargo says to this script is not meant for another crate: linters as compilers, features, flags.
    for (name, _) in env::vars() {
        let own = name.starts_with("CARGO_") && name != "CARGO_HOME" && name != "CARGO_MAKEFLAGS";
        if own || name.starts_with("RUSTC_") || ["RUSTFLAGS", "TARGET", "PROFILE", "OUT_DIR"].contains(&name.as_str()) {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "errand-guest",
            "--bin",
            "errand-bridge",
            "--profile",
            profile,
        ])
        .args(["--target", &target, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", GUEST_FLAGS)
        .status()?;
    if !status.success() {
        return Err(format!("the guest could not be built: {status}").into());
    }
    fs::copy(target_dir.join(&target).join(profile).join("errand-bridge"), out.join("errand-bridge"))?;
    Ok(())
}
