//! The runtime conformance suite on a real Docker engine, and on embedded sandboxes.

use std::sync::Arc;

use crate::conformance::runtime::Place;
use crate::support::{
    docker::{self, Image, engine, runtime},
    embedded::{self, Root},
};

async fn docker(image: Image) -> Option<Place> {
    engine(image).await?;
    Some(Place {
        runtime: Arc::new(runtime()),
        image: image.name(),
        // KILL, SETGID and SETUID, for the bridge process.
        capabilities: "00000000000000e0",
        root_can_be_written: true,
        reports_exit_status: true,
        remove: Arc::new(docker::remove),
    })
}

async fn embedded(root: Root) -> Option<Place> {
    let machine = Arc::new(embedded::machine().await?);
    Some(Place {
        runtime: machine.runtime(),
        image: root.image()?,
        capabilities: "0000000000000000",
        root_can_be_written: root != Root::Host,
        reports_exit_status: false,
        remove: Arc::new(move |name| machine.remove(name)),
    })
}

crate::runtime_conformance! {
    docker_with_busybox: docker(Image::Busybox);
    docker_with_debian: docker(Image::Debian);
    embedded_with_this_machine: embedded(Root::Host);
    embedded_with_busybox: embedded(Root::Busybox);
}

#[tokio::test]
async fn missing_engine_is_unavailable() {
    use errand_runtime::{DockerRuntime, Runtime as _, RuntimeError};
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    match DockerRuntime::new(socket.to_str(), errand::guest::program()).ping().await {
        Err(RuntimeError::Unavailable { detail }) => assert!(detail.contains("none.sock"), "{detail}"),
        other => panic!("{other:?}"),
    }
}
