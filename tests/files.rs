//! The files conformance suite: on the direct bridge in real containers of both images, and on the resident bridge's service and its client
//! beside each other, without a sandbox between them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance {
    pub mod files;
}
mod support;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use bollard::models::HostConfig;
use conformance::files::{Bench, Shell};
use errand::{
    bridge::{DirectBridge, FileEntries, FileError, FileReader, FileSource, ResidentFiles, SandboxFiles},
    runtime::{Runtime, RuntimeError},
    task::{FileEntry, FilePath, WriteOptions},
};
use errand_bridge::{files::Files, proto::file_service_server::FileServiceServer};
use support::docker::{self, Image, container, engine, runtime};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Endpoint, Server, server::TcpIncoming};

/// The direct bridge in a fresh container.
async fn direct(image: Image) -> Option<Bench> {
    let docker = engine(image).await?;
    let container = container(&docker, image, |body| {
        let tmpfs = HashMap::from([("/small".to_owned(), "size=1m,mode=1777".to_owned())]);
        body.host_config = Some(HostConfig { tmpfs: Some(tmpfs), ..docker::host_config() });
    })
    .await;
    let runtime = Arc::new(runtime());
    let files = Arc::new(DirectBridge::new(runtime.clone(), "/tmp/errand"));
    let sandbox = container.id.clone();
    let shell = Arc::new(InContainer { runtime, sandbox: sandbox.clone() });
    Some(Bench::new(files, shell, sandbox, "/tmp/bench", Some("/small"), container).await)
}

struct InContainer {
    runtime: Arc<dyn Runtime>,
    sandbox: String,
}

#[async_trait]
impl Shell for InContainer {
    async fn run(&self, script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let said = self.runtime.exec(&self.sandbox, &argv).await.unwrap().collect(1 << 20).await.unwrap();
        assert!(said.stderr.is_empty(), "{script}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

/// The resident bridge's service and its client, on this machine.
async fn resident(files: Files) -> Option<Bench> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(FileServiceServer::new(files));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("bench").display().to_string();
    let files = Arc::new(Here(ResidentFiles::new(channel)));
    Some(Bench::new(files, Arc::new(OnThisMachine), String::new(), &path, None, directory).await)
}

struct OnThisMachine;

#[async_trait]
impl Shell for OnThisMachine {
    async fn run(&self, script: &str) -> String {
        let output = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
        assert!(output.stderr.is_empty(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Every sandbox is this machine.
struct Here(ResidentFiles);

#[async_trait]
impl SandboxFiles for Here {
    async fn stat_file(&self, _: &str, path: &FilePath, follow: bool) -> Result<FileEntry, FileError> {
        self.0.stat_file(path, follow).await
    }

    async fn list_directory(&self, _: &str, path: &FilePath) -> Result<FileEntries, FileError> {
        self.0.list_directory(path).await
    }

    async fn read_file(
        &self,
        _: &str,
        path: &FilePath,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<FileReader, FileError> {
        self.0.read_file(path, offset, limit).await
    }

    async fn write_file(
        &self,
        _: &str,
        path: &FilePath,
        options: WriteOptions,
        content: FileSource,
    ) -> Result<FileEntry, FileError> {
        self.0.write_file(path, options, content).await
    }

    async fn remove_file(&self, _: &str, path: &FilePath, recursive: bool) -> Result<(), FileError> {
        self.0.remove_file(path, recursive).await
    }
}

#[tokio::test]
async fn a_sandbox_without_a_shell_says_so() {
    let Some(docker) = engine(Image::Busybox).await else { return };
    let container = container(&docker, Image::Busybox, |_| {}).await;
    docker::exec(&docker, &container.id, "rm /bin/sh").await;
    let files = DirectBridge::new(Arc::new(runtime()), "/tmp/errand");
    let path = FilePath { path: "/etc/hosts".to_owned(), root: None };
    let errors = [
        files.stat_file(&container.id, &path, false).await.err(),
        files.list_directory(&container.id, &path).await.err(),
        files.read_file(&container.id, &path, 0, None).await.err(),
        files
            .write_file(&container.id, &path, WriteOptions::default(), Box::pin(futures_util::stream::empty()))
            .await
            .err(),
        files.remove_file(&container.id, &path, false).await.err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(FileError::Runtime(RuntimeError::NotStarted { .. }))), "{error:?}");
    }
}

files_conformance! {
    direct_on_busybox: direct(Image::Busybox);
    direct_on_debian: direct(Image::Debian);
    resident_service: resident(Files::new());
    resident_service_without_openat2: resident(Files::without_openat2());
}
