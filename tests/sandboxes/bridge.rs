//! The bridge conformance suite on both bridges, in real containers of both images and in embedded sandboxes.

use std::{any::Any, sync::Arc};

use crate::conformance::bridge::Bench;
use crate::support::{
    docker::{Image, container, engine, runtime},
    embedded::{self, Root},
};
use errand_bridge::{Bridges, DirectBridge, SandboxBridge};
use errand_runtime::{Runtime, Runtimes, SandboxRef};

/// The root of the task directories of every bridge in these tests.
const ROOT: &str = "/tmp/errand";

/// A sandbox to run commands in, and the values that keep it alive.
type Fresh = (Arc<dyn Runtime>, String, Box<dyn Any + Send + Sync>);

async fn docker(image: Image) -> Option<Fresh> {
    let container = container(&engine(image).await?, image, |_| {}).await;
    Some((Arc::new(runtime()), container.id.clone(), Box::new(container)))
}

async fn embedded(root: Root) -> Option<Fresh> {
    let sandbox = embedded::sandbox(root).await?;
    Some((sandbox.runtime.clone(), sandbox.id().to_owned(), Box::new(sandbox)))
}

fn direct_bridge(runtime: &Arc<dyn Runtime>, sandbox: &str) -> Arc<dyn SandboxBridge> {
    Arc::new(DirectBridge::new(Arc::clone(runtime), &SandboxRef::new(runtime.name(), sandbox), ROOT))
}

fn chosen_bridge(runtime: &Arc<dyn Runtime>, sandbox: &str) -> Arc<dyn SandboxBridge> {
    let bridges = Bridges::new(Runtimes::one(Arc::clone(runtime)), ROOT);
    bridges.bridge(&SandboxRef::new(runtime.name(), sandbox)).expect("the only runtime")
}

async fn direct(fresh: impl Future<Output = Option<Fresh>>) -> Option<Bench> {
    let (runtime, sandbox, keep) = fresh.await?;
    let bridge = direct_bridge(&runtime, &sandbox);
    Some(Bench { bridge, runtime, sandbox, root: ROOT, _keep: keep })
}

async fn resident(fresh: impl Future<Output = Option<Fresh>>) -> Option<Bench> {
    let (runtime, sandbox, keep) = fresh.await?;
    let bridge = chosen_bridge(&runtime, &sandbox);
    let state = bridge.prepare().await.expect("a bridge");
    assert_eq!(state.name, "resident", "{}", state.detail);
    Some(Bench { bridge, runtime, sandbox, root: ROOT, _keep: keep })
}

crate::bridge_conformance! {
    direct_on_busybox: direct(docker(Image::Busybox));
    direct_on_debian: direct(docker(Image::Debian));
    direct_embedded: direct(embedded(Root::Host));
    resident_on_busybox: resident(docker(Image::Busybox));
    resident_on_debian: resident(docker(Image::Debian));
    resident_embedded: resident(embedded(Root::Host));
}

/// Both bridges report kills for lack of memory, also to a server that attaches later, and only those that happened while the command ran.
#[tokio::test]
async fn both_bridges_count_memory_kills() {
    use crate::conformance::bridge::bench::{is_end, text, until};
    use errand_bridge::Report;
    for image in [Image::Busybox, Image::Debian] {
        let Some(engine) = engine(image).await else { return };
        let container = container(&engine, image, |body| {
            let host = body.host_config.get_or_insert_default();
            (host.memory, host.memory_swap) = (Some(64 << 20), Some(64 << 20));
        })
        .await;
        let runtime: Arc<dyn Runtime> = Arc::new(runtime());
        for bridge in [direct_bridge(&runtime, &container.id), chosen_bridge(&runtime, &container.id)] {
            let keep = Box::new(());
            let runtime = runtime.clone();
            let bench = Bench { bridge, runtime, sandbox: container.id.clone(), root: ROOT, _keep: keep };
            for (command, wanted) in [
                ("exec tail /dev/zero", 1),
                ("sh -c 'exec tail /dev/zero'; exit 3", 1),
                ("kill -9 $$", 0),
                ("exit 3", 0),
            ] {
                let (id, nonce, mut attachment) = bench.launch(&text(command)).await;
                let report = until(&mut attachment, "the end", is_end).await;
                let Report::Ended { oom_kills, .. } = report else { panic!("{report:?}") };
                assert_eq!((oom_kills, bench.probe(id, nonce).await.oom_kills), (wanted, wanted), "{command}");
            }
        }
    }
}
