//! Compiles `proto/` with a pure-Rust compiler, so that a build needs nothing but cargo.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

const PROTO: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    if env::var_os("CARGO_FEATURE_PUBLIC").is_some() {
        compile_public(Path::new(&env::var("OUT_DIR")?))?;
    }
    compile_internal()
}

fn compile_public(out: &Path) -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(PROTO).join("errand/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();

    let mut compiler = protox::Compiler::new([PROTO])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    // The encoded set keeps comments and options: reflection serves it and the command line renders JSON from it.
    fs::write(out.join("errand.v1.binpb"), compiler.encode_file_descriptor_set())?;
    // `Bytes` avoids copying output and file content.
    tonic_prost_build::configure()
        .bytes(".errand.v1")
        .skip_debug([".errand.v1.StartTaskRequest"])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn compile_internal() -> Result<(), Box<dyn Error>> {
    let bridge = ["bridge", "files", "shim"].map(|name| format!("errand/bridge/v1/{name}.proto"));
    let init = ["init", "launch"].map(|name| format!("errand/init/v1/{name}.proto"));
    let mut compiler = protox::Compiler::new([PROTO])?;
    compiler.include_imports(true).open_files(bridge.into_iter().chain(init))?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".errand.bridge.v1")
        .skip_debug([".errand.bridge.v1.LaunchRequest"])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
