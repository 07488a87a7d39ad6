//! The program `forkloop` in a sandbox: commands without anybody who keeps anything.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::bare::Bare;

const PATH: &str = "/tmp/errand-bench-forkloop";

/// The program, where it was put.
pub struct ForkLoop {
    bare: Bare,
}

impl ForkLoop {
    /// Builds it, static, so that it runs in any image, and puts it into a sandbox.
    pub async fn install(bare: Bare) -> Result<Self> {
        // Beside the directory that tests and benchmarks have for themselves.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("forkloop");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--release", "--package", "forkloop", "--target-dir"])
            .arg(&target)
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Crelocation-model=static")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()?;
        ensure!(built.success(), "the fork loop could not be built: {built}");
        let program = fs::read(target.join("release").join("forkloop")).context("read the fork loop")?;
        bare.put(PATH, &program).await.context("put the fork loop into the sandbox")?;
        Ok(Self { bare })
    }

    /// How long it takes for so many commands, by its own clock.
    pub async fn run(&self, count: usize, at_a_time: usize) -> Result<Duration> {
        let printed = self.bare.run(&format!("{PATH} {count} {at_a_time}")).await?;
        Ok(Duration::from_nanos(printed.parse().with_context(|| format!("what the fork loop said: {printed}"))?))
    }
}
