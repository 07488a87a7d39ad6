//! Reloads the tokens file when it changes, and on SIGHUP.
//!
//! The file is polled every second. Polling costs less than a watch, which would have to follow the directories, links and remounts that
//! Kubernetes swaps. An invalid file changes nothing and is logged.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{signal::unix::Signal, time::sleep};
use tokio_util::sync::CancellationToken;

use super::Tokens;

/// How often the file is checked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Identifies a version of the file by its device, its inode, its length, and the modification times of the file and the inode. This
/// detects even a file of the same size that was written in the same moment.
type Stamp = [i64; 7];

impl Tokens {
    /// Follows the file until `end` is cancelled. Calls `changed` after each change.
    pub async fn follow(self, file: PathBuf, mut hangup: Signal, end: CancellationToken, changed: impl Fn(&Self)) {
        let mut last: Option<Result<Stamp, io::ErrorKind>> = None;
        loop {
            let asked = tokio::select! {
                () = end.cancelled() => return,
                _ = hangup.recv() => true,
                () = sleep(INTERVAL) => false,
            };
            let now = stamp(&file).await;
            if !asked && last.as_ref() == Some(&now) {
                continue;
            }
            last = Some(now);
            self.read_again(&file).await;
            changed(&self);
        }
    }

    async fn read_again(&self, file: &Path) {
        let owned = file.to_owned();
        match tokio::task::spawn_blocking(move || Self::read(&owned)).await {
            Ok(Ok(read)) => {
                let revoked = self.replace(read);
                if revoked > 0 {
                    tracing::info!(file = %file.display(), revoked, "the tokens file has changed");
                }
            }
            Ok(Err(error)) => {
                let problems = error.to_string().replace('\n', "; ");
                tracing::error!(problems, "the tokens file was not taken over: the tokens stay as they were");
            }
            Err(error) => tracing::error!(%error, "the tokens file was not read"),
        }
    }
}

async fn stamp(file: &Path) -> Result<Stamp, io::ErrorKind> {
    let file = file.to_owned();
    let found = tokio::task::spawn_blocking(move || fs::metadata(file)).await;
    let found = found.map_err(|_| io::ErrorKind::Other)?.map_err(|error| error.kind())?;
    let number = |value: u64| i64::from_ne_bytes(value.to_ne_bytes());
    let [device, inode, length] = [found.dev(), found.ino(), found.len()].map(number);
    Ok([device, inode, length, found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()])
}
