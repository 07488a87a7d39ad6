//! Compiles the bridge's protocol.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto/errand/bridge");
    println!("cargo:rerun-if-changed=../proto/errand/init");
    let bridge = ["bridge", "files", "shim"].map(|name| format!("errand/bridge/v1/{name}.proto"));
    let init = ["init", "launch"].map(|name| format!("errand/init/v1/{name}.proto"));
    let mut compiler = protox::Compiler::new(["../proto"])?;
    compiler.include_imports(true).open_files(bridge.into_iter().chain(init))?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".errand.bridge.v1")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
