//! Runs the program `forkloop` in a sandbox: commands without any supervision or records.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::bare::Bare;

const PATH: &str = "/tmp/errand-bench-forkloop";

/// The installed program.
pub struct ForkLoop {
    bare: Bare,
}

impl ForkLoop {
    /// Builds the program and puts it into a sandbox. The program is static, so that it runs in any image.
    pub async fn install(bare: Bare) -> Result<Self> {
        // Beside the target directory that cargo keeps for tests and benchmarks.
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

    /// The time for `count` commands, measured by the program itself.
    pub async fn run(&self, count: usize, at_a_time: usize) -> Result<Duration> {
        let printed = self.bare.run(&format!("{PATH} {count} {at_a_time}")).await?;
        Ok(Duration::from_nanos(printed.parse().with_context(|| format!("what the fork loop said: {printed}"))?))
    }
}
