//! The runtime conformance suite on a real Docker engine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance {
    pub mod runtime;
}
mod support;

use std::sync::Arc;

use conformance::runtime::Place;
use support::docker::{Image, engine, runtime};

async fn docker(image: Image) -> Option<Place> {
    engine(image).await?;
    Some(Place { runtime: Arc::new(runtime()), image: image.name() })
}

runtime_conformance! {
    docker_with_busybox: docker(Image::Busybox);
    docker_with_debian: docker(Image::Debian);
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unavailable() {
    use errand::runtime::{DockerRuntime, Runtime as _, RuntimeError};
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    match DockerRuntime::new(socket.to_str()).ping().await {
        Err(RuntimeError::Unavailable { detail }) => assert!(detail.contains("none.sock"), "{detail}"),
        other => panic!("{other:?}"),
    }
}
