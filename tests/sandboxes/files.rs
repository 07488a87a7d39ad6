//! The files conformance suite on both bridges, in real containers of both images and in embedded sandboxes.

use std::{any::Any, collections::HashMap, sync::Arc};

use crate::conformance::files::{Bench, Shell};
use crate::support::{
    docker::{self, Image, container, engine, runtime},
    embedded::{self, Root},
};
use async_trait::async_trait;
use bollard::models::HostConfig;
use errand_bridge::{Bridges, DirectBridge, FileError, SandboxFiles};
use errand_runtime::{Runtime, RuntimeError, Runtimes, SandboxRef};
use errand_task::{FilePath, WriteOptions};

/// The root of the task directories of every bridge in these tests.
const ROOT: &str = "/tmp/errand";

/// A sandbox, a file system of 1 MiB in it if it can have one, and the values that keep the sandbox alive.
type Fresh = (Arc<dyn Runtime>, String, Option<&'static str>, Box<dyn Any + Send>);

async fn docker(image: Image) -> Option<Fresh> {
    let docker = engine(image).await?;
    let container = container(&docker, image, |body| {
        let tmpfs = HashMap::from([("/small".to_owned(), "size=1m,mode=1777".to_owned())]);
        body.host_config = Some(HostConfig { tmpfs: Some(tmpfs), ..docker::host_config() });
    })
    .await;
    Some((Arc::new(runtime()), container.id.clone(), Some("/small"), Box::new(container)))
}

async fn embedded(root: Root) -> Option<Fresh> {
    let sandbox = embedded::sandbox(root).await?;
    Some((sandbox.runtime.clone(), sandbox.id().to_owned(), None, Box::new(sandbox)))
}

async fn direct(fresh: impl Future<Output = Option<Fresh>>) -> Option<Bench> {
    bench(fresh, |runtime, sandbox| Arc::new(DirectBridge::new(runtime, sandbox, ROOT))).await
}

async fn resident(fresh: impl Future<Output = Option<Fresh>>) -> Option<Bench> {
    bench(fresh, |runtime, sandbox| {
        let bridges = Bridges::new(Runtimes::one(runtime), ROOT);
        bridges.bridge(sandbox).expect("the only runtime")
    })
    .await
}

/// A bridge in a new sandbox.
async fn bench(
    fresh: impl Future<Output = Option<Fresh>>,
    make: impl FnOnce(Arc<dyn Runtime>, &SandboxRef) -> Arc<dyn SandboxFiles>,
) -> Option<Bench> {
    let (runtime, sandbox, small, keep) = fresh.await?;
    let files = make(runtime.clone(), &SandboxRef::new(runtime.name(), &sandbox));
    let shell = Arc::new(Inside { runtime, sandbox });
    Some(Bench::new(files, shell, "/tmp/bench", small, keep).await)
}

struct Inside {
    runtime: Arc<dyn Runtime>,
    sandbox: String,
}

#[async_trait]
impl Shell for Inside {
    async fn run(&self, script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let said = self.runtime.exec(&self.sandbox, &argv).await.unwrap().collect(1 << 20).await.unwrap();
        assert!(said.stderr.is_empty(), "{script}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

#[tokio::test]
async fn sandbox_without_a_shell_is_reported() {
    let Some(docker) = engine(Image::Busybox).await else { return };
    let container = container(&docker, Image::Busybox, |_| {}).await;
    docker::exec(&docker, &container.id, "rm /bin/sh").await;
    let files = DirectBridge::new(Arc::new(runtime()), &SandboxRef::new("docker", &container.id), ROOT);
    let path = FilePath { path: "/etc/hosts".to_owned(), root: None };
    let errors = [
        files.stat_file(&path, false).await.err(),
        files.list_directory(&path).await.err(),
        files.read_file(&path, 0, None).await.err(),
        files.write_file(&path, WriteOptions::default(), Box::pin(futures_util::stream::empty())).await.err(),
        files.remove_file(&path, false).await.err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(FileError::Runtime(RuntimeError::NotStarted { .. }))), "{error:?}");
    }
}

crate::files_conformance! {
    direct_on_busybox: direct(docker(Image::Busybox));
    direct_on_debian: direct(docker(Image::Debian));
    direct_embedded: direct(embedded(Root::Host));
    resident_on_busybox: resident(docker(Image::Busybox));
    resident_on_debian: resident(docker(Image::Debian));
    resident_embedded: resident(embedded(Root::Host));
}
