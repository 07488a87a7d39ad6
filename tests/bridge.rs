//! The bridge conformance suite on the direct bridge, in real containers of both images.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance {
    pub mod bridge;
}
mod support;

use std::sync::Arc;

use conformance::bridge::Bench;
use errand::bridge::DirectBridge;
use support::docker::{Image, container, engine, runtime};

/// The direct bridge in a fresh container.
async fn direct(image: Image) -> Option<Bench> {
    let docker = engine(image).await?;
    let container = container(&docker, image, |_| {}).await;
    let runtime = Arc::new(runtime());
    let bridge = Arc::new(DirectBridge::new(runtime.clone(), "/tmp/errand"));
    Some(Bench { bridge, runtime, sandbox: container.id.clone(), root: "/tmp/errand", _container: container })
}

bridge_conformance! {
    direct_on_busybox: direct(Image::Busybox);
    direct_on_debian: direct(Image::Debian);
}
