//! Compiles `proto/` with a pure-Rust compiler, and the bridge that is put into sandboxes, so that a build needs nothing but cargo.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Static, and at a fixed address: it runs in any image, and its pages are shared by all of its processes.
const BRIDGE_FLAGS: &str = "-Ctarget-feature=+crt-static -Crelocation-model=static";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    compile_public_protocol(&out)?;
    compile_bridge_protocol()?;
    build_bridge(&out)
}

fn compile_public_protocol(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> =
        fs::read_dir("proto/errand/v1")?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    // The encoded set keeps comments and options: reflection serves it and the command line renders JSON from it.
    fs::write(out.join("errand.v1.binpb"), compiler.encode_file_descriptor_set())?;
    // Output and files go through without being copied.
    tonic_prost_build::configure().bytes(".errand.v1").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn compile_bridge_protocol() -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files([
        "errand/bridge/v1/bridge.proto",
        "errand/bridge/v1/files.proto",
        "errand/init/v1/init.proto",
        "errand/init/v1/launch.proto",
    ])?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".errand.bridge.v1")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Builds the bridge with a cargo of its own: it has other flags and another profile than the server. All profiles of the server share it.
fn build_bridge(out: &Path) -> Result<(), Box<dyn Error>> {
    for path in ["bridge", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let target = env::var("TARGET")?;
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
            "errand-bridge",
            "--bin",
            "errand-bridge",
            "--profile",
            "bridge",
        ])
        .args(["--target", &target, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", BRIDGE_FLAGS)
        .status()?;
    if !status.success() {
        return Err(format!("the bridge could not be built: {status}").into());
    }
    fs::copy(target_dir.join(&target).join("bridge").join("errand-bridge"), out.join("errand-bridge"))?;
    Ok(())
}
