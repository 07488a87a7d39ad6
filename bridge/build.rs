//! Compiles the bridge's protocol.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto/errand/bridge");
    let files = ["bridge", "files", "shim"].map(|name| format!("errand/bridge/v1/{name}.proto"));
    let mut compiler = protox::Compiler::new(["../proto"])?;
    compiler.include_imports(true).open_files(files)?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".errand.bridge.v1")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
