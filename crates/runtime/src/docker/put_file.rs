//! Writes files into containers.

use bollard::query_parameters::UploadToContainerOptionsBuilder;

use super::{DockerRuntime, archive, error, exec::READ_BUFFER};
use crate::{NotStarted, Runtime as _, RuntimeError};

/// Needs the length of its input, not the end of it.
const SCRIPT: &str = include_str!("put_file.sh");

impl DockerRuntime {
    /// As [`Runtime::put_file`](crate::Runtime::put_file), in a container whose network is fenced already.
    pub(super) async fn put(
        &self,
        runtime_id: &str,
        path: &str,
        content: &[u8],
        mode: u32,
    ) -> Result<(), RuntimeError> {
        // The archive API neither sees tmpfs mounts nor knows the sandbox's user by name, so it serves sandboxes without a shell only.
        match self.put_by_shell(runtime_id, path, content, mode).await {
            Err(RuntimeError::NotStarted { reason: NotStarted::NotFound, .. }) => {
                self.put_by_archive(runtime_id, path, content, mode).await
            }
            result => result,
        }
    }

    async fn put_by_shell(&self, runtime_id: &str, path: &str, content: &[u8], mode: u32) -> Result<(), RuntimeError> {
        let size = content.len().to_string();
        let argv = ["sh", "-c", SCRIPT, "errand", path, &size, &format!("{mode:o}")].map(str::to_owned);
        let said = self.exec_as(runtime_id, None, &argv).await?.feed(content, READ_BUFFER).await?;
        if &said.stdout[..] == b"written\n" {
            return Ok(());
        }
        let detail = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).trim().to_owned();
        if detail.is_empty() {
            return Err(RuntimeError::Unavailable { detail: format!("the engine broke off while {path} was written") });
        }
        Err(RuntimeError::NotWritten { path: path.to_owned(), detail })
    }

    async fn put_by_archive(
        &self,
        runtime_id: &str,
        path: &str,
        content: &[u8],
        mode: u32,
    ) -> Result<(), RuntimeError> {
        let not_written = |detail: String| RuntimeError::NotWritten { path: path.to_owned(), detail };
        let user = self.inspect(runtime_id).await?.spec.user;
        let owner = user.and_then(|user| user.split(':').next()?.parse().ok());
        let archive = archive::pack(path, content, mode, owner)
            .ok_or_else(|| not_written("not the absolute path of a file in a directory".to_owned()))?;
        let options = UploadToContainerOptionsBuilder::default().path(&archive.directory).build();
        let body = bollard::body_full(archive.content);
        let uploaded = self.docker()?.upload_to_container(runtime_id, Some(options), body).await;
        uploaded.map_err(|failure| match error::about_container(failure, runtime_id) {
            RuntimeError::Refused { detail } => not_written(detail),
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::{
        fs,
        io::Write as _,
        path::Path,
        process::{Command, Stdio},
    };

    use super::SCRIPT;

    /// Runs the script, and ends its input only after the script has ended. Returns what it prints.
    fn put(path: &Path, content: &[u8]) -> String {
        let (path, size) = (path.to_str().unwrap(), content.len().to_string());
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "errand", path, &size, "640"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = shell.stdin.take().unwrap();
        input.write_all(content).unwrap();
        let output = std::io::read_to_string(shell.stdout.take().unwrap()).unwrap();
        shell.wait().unwrap();
        drop(input);
        output
    }

    #[test]
    fn script_needs_no_end_of_input() {
        let directory = tempfile::tempdir().unwrap();
        // More than a pipe holds: a script that reads no further blocks the sender.
        let content = vec![b'x'; 1 << 20];
        let path = directory.path().join("a/file");
        assert_eq!(put(&path, &content), "written\n");
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(put(&path, b""), "written\n");
        assert_eq!(fs::read(&path).unwrap(), b"");

        assert_eq!(put(&directory.path().join("a/file/below"), &content), "", "the directory cannot be made");
        assert_eq!(put(Path::new("/proc/file"), &content), "", "no file can be made there");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no part is left");
    }
}
