//! The bridge conformance suite on both bridges, in real containers of both images.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance {
    pub mod bridge;
}
mod support;

use std::sync::Arc;

use conformance::bridge::Bench;
use errand::{
    bridge::{BridgeChoice, DirectBridge, ExecBridge},
    runtime::Runtime,
};
use support::docker::{Image, container, engine, runtime};

/// Task directories of every bridge here.
const ROOT: &str = "/tmp/errand";

/// A bridge in a fresh container.
async fn bench<B: ExecBridge>(image: Image, make: impl FnOnce(Arc<dyn Runtime>) -> B) -> Option<Bench> {
    let docker = engine(image).await?;
    let container = container(&docker, image, |_| {}).await;
    let runtime = Arc::new(runtime());
    let bridge = Arc::new(make(runtime.clone()));
    Some(Bench { bridge, runtime, sandbox: container.id.clone(), root: ROOT, _container: container })
}

async fn direct(image: Image) -> Option<Bench> {
    bench(image, |runtime| DirectBridge::new(runtime, ROOT)).await
}

async fn resident(image: Image) -> Option<Bench> {
    let bench = bench(image, |runtime| BridgeChoice::new(runtime, ROOT)).await?;
    let state = bench.bridge.prepare(&bench.sandbox).await.expect("a bridge");
    assert_eq!(state.name, "resident", "{}", state.detail);
    Some(bench)
}

bridge_conformance! {
    direct_on_busybox: direct(Image::Busybox);
    direct_on_debian: direct(Image::Debian);
    resident_on_busybox: resident(Image::Busybox);
    resident_on_debian: resident(Image::Debian);
}
