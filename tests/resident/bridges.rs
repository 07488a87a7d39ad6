//! Bridge processes start, exit, are killed and replaced; commands are unaffected.

use std::sync::Arc;

use bollard::models::HostConfig;
use errand_bridge::{DirectBridge, Report, SandboxBridge};
use errand_runtime::{RuntimeError, SandboxRef};
use errand_task::{Ending, Nonce, Signal, TaskId, sentinel::Sentinel};

use super::place::{EVERYWHERE, Place, ROOT, SETTINGS, Where, sh, text};
use crate::support::{
    docker::{Image, host_config},
    embedded::Root,
    wait::{eventually, soon},
};

const GATE: &str = "until [ -e /tmp/end ]; do sleep 0.05; done";

#[tokio::test]
async fn two_concurrent_servers_share_one_bridge() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let others: Vec<_> = (0..4).map(|_| place.another()).collect();
        let states = futures_util::future::join_all(others.iter().map(|bridge| bridge.prepare())).await;
        for state in states {
            assert_eq!(state.unwrap().name, "resident");
        }
        assert_eq!(place.named("errand-bridge").await.len(), 1);
        let launched = place.launch(&text("echo hi; exit 3")).await;
        assert_eq!(launched.ran().await.ending, Some(Ending::Exited(3)));
    }
}

#[tokio::test]
async fn unpolled_caller_blocks_no_other() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let mut left = place.bridge.prepare();
        assert!(futures_util::poll!(&mut left).is_pending());
        assert_eq!(soon("another connects", place.bridge.prepare()).await.unwrap().name, "resident");
        assert_eq!(left.await.unwrap().name, "resident");
    }
}

#[tokio::test]
async fn killed_bridge_disturbs_no_command() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let mut launched = place.launch(&text(&format!("echo before; {GATE}; echo after; exit 4"))).await;
        launched.until_output("before").await;
        let first = place.named("errand-bridge").await;
        place.sh(&format!("kill -9 {}", first[0])).await;
        eventually("the attachment breaks", async || {
            (launched.attachment.next().await.unwrap() == Report::Broken).then_some(())
        })
        .await;
        let again =
            eventually("another bridge", async || place.bridge.attach(launched.id, launched.nonce, 7, &[]).await.ok())
                .await;
        let second = place.named("errand-bridge").await;
        assert_eq!(second.len(), 1);
        assert_ne!(first, second);
        place.sh("touch /tmp/end").await;
        launched.attachment = again;
        let ran = launched.ran().await;
        assert_eq!((ran.text().as_str(), ran.ending), ("after\n", Some(Ending::Exited(4))));
    }
}

#[tokio::test]
async fn results_without_a_bridge_are_found() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let launched = place.launch(&text(&format!("{GATE}; kill -15 $$"))).await;
        place.find_until(&launched, "the command runs", |finding| finding.alive).await;
        place
            .sh("kill -9 $(grep -lxE 'errand-(bridge|spawner)' /proc/[0-9]*/comm | cut -d/ -f3); touch /tmp/end")
            .await;
        let found = eventually("the result", async || {
            let asked = [(launched.id, launched.nonce)];
            let mut findings = place.bridge.probe(&asked, false).await.ok()?;
            Some(findings.remove(0)).filter(|finding| finding.sentinel != Sentinel::Absent)
        })
        .await;
        assert_eq!(found.sentinel, Sentinel::Complete(Ending::Signaled(Signal::TERM)));
        assert!(found.usage.is_some());
    }
}

#[tokio::test]
async fn killed_shim_ends_its_tree_without_result() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        // A child in a session of its own, without the task's marker and without a waiting parent.
        let command = "env -i setsid sh -c 'sleep 777 & sleep 778' >/dev/null 2>&1 & sleep 779";
        let launched = place.launch(&text(command)).await;
        eventually("three sleepers", async || (place.running("sleep 77[789]").await == 3).then_some(())).await;
        place.sh(&format!("kill -9 $(head -n 1 {ROOT}/{}/processes | cut -d' ' -f1)", launched.id)).await;
        eventually("they are gone", async || (place.running("sleep 77[789]").await == 0).then_some(())).await;
        let found = place.find_until(&launched, "the shim is gone", |finding| !finding.supervised).await;
        assert_eq!((found.started, found.sentinel), (true, Sentinel::Absent));
        assert_eq!(launched.ran().await.ending, None);
    }
}

#[tokio::test]
async fn newer_bridge_replaces_an_older_under_load() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let command = "i=0; until [ -e /tmp/end ]; do i=$((i+1)); echo $i; done; echo last; exit 6";
        let mut running = Vec::new();
        for _ in 0..4 {
            running.push(place.launch(&text(command)).await);
        }
        for launched in &mut running {
            launched.until_output("100\n").await;
        }
        let old = place.named("errand-bridge").await;
        // In a sandbox that the runtime created, the guest's binary is on a mount; in any other, it was put beside the tasks.
        let mounted = place.runtime.guest_path();
        let newer =
            format!("p={mounted}; [ -x $p ] || p=$(echo {ROOT}/.bridge/errand-bridge-*); exec $p connect {ROOT} 1000");
        // Stays connected to the newer bridge process, as another server would.
        let (runtime, sandbox) = (place.runtime.clone(), place.sandbox.clone());
        let other = tokio::spawn(async move { sh(&*runtime, &sandbox, &newer).await });
        eventually("the newer bridge", async || {
            let now = place.named("errand-bridge").await;
            (!now.contains(&old[0]) && !now.is_empty()).then_some(())
        })
        .await;
        // New launches work, and earlier commands are still followed.
        let launched = eventually("a launch through the newer bridge", async || {
            let (id, nonce) = (TaskId::new(), Nonce::new());
            place.bridge.launch(id, nonce, &text("exit 5"), SETTINGS, &[]).await.ok()
        })
        .await;
        let mut launched = super::place::Launched { id: TaskId::new(), nonce: Nonce::new(), attachment: launched };
        let ending = launched.until("its end", |report| match report {
            Report::Ended { ending, .. } => Some(ending),
            _ => None,
        });
        assert_eq!(ending.await, Ending::Exited(5));
        place.sh("touch /tmp/end").await;
        for launched in running {
            let ran = place.attach(&launched, 0).await.ran().await;
            assert_eq!(ran.ending, Some(Ending::Exited(6)));
            let text = ran.text();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.last(), Some(&"last"));
            for (index, line) in lines[..lines.len() - 1].iter().enumerate() {
                assert_eq!(*line, (index + 1).to_string());
            }
        }
        other.abort();
    }
}

#[tokio::test]
async fn bridges_read_tasks_of_each_other() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let sandbox = SandboxRef::new(place.runtime.name(), &place.sandbox);
        let direct = DirectBridge::new(Arc::clone(&place.runtime), &sandbox, ROOT);
        let command = text(&format!("echo before; {GATE}; echo after; exit 9"));

        let by_resident = place.launch(&command).await;
        let (id, nonce) = (TaskId::new(), Nonce::new());
        let attachment = direct.launch(id, nonce, &command, SETTINGS, &[]).await.unwrap();
        let by_direct = super::place::Launched { id, nonce, attachment };
        place.find_until(&by_resident, "one runs", |finding| finding.alive && finding.supervised).await;
        place.find_until(&by_direct, "the other runs", |finding| finding.alive && finding.supervised).await;
        let found = direct.probe(&[(by_resident.id, by_resident.nonce)], false).await.unwrap().remove(0);
        assert!(found.alive && found.supervised && found.started, "{found:?}");

        let crossed = direct.attach(by_resident.id, by_resident.nonce, 0, &[]).await.unwrap();
        let crossed = super::place::Launched { attachment: crossed, ..by_resident };
        let other = place.attach(&by_direct, 0).await;
        place.sh("touch /tmp/end").await;
        assert_eq!(other.ran().await.ending, Some(Ending::Exited(9)));
        let _ = crossed.ran().await;
        for launched in [id, by_resident.id] {
            let asked = [(launched, if launched == id { nonce } else { by_resident.nonce })];
            for bridge in [&direct as &dyn SandboxBridge, &*place.bridge] {
                let found = bridge.probe(&asked, false).await.unwrap().remove(0);
                assert_eq!(found.sentinel, Sentinel::Complete(Ending::Exited(9)), "{launched}");
                assert_eq!(found.output_bytes, 13);
            }
        }
    }
}

#[tokio::test]
async fn noexec_sandbox_gets_the_direct_bridge() {
    let tune = |body: &mut bollard::models::ContainerCreateBody| {
        body.host_config = Some(HostConfig {
            readonly_rootfs: Some(true),
            tmpfs: Some([("/tmp".to_owned(), "rw,noexec,mode=1777".to_owned())].into()),
            ..host_config()
        });
    };
    let Some(place) = Place::tuned(Image::Debian, tune).await else { return };
    let state = place.bridge.prepare().await.unwrap();
    assert_eq!(state.name, "direct");
    assert!(state.detail.to_lowercase().contains("permission denied"), "{state:?}");
    assert_eq!(place.bridge.state(), Some(state));
    let ran = place.run(&text("echo hi; exit 3")).await;
    assert_eq!((ran.text().as_str(), ran.ending), ("hi\n", Some(Ending::Exited(3))));
}

#[tokio::test]
async fn a_restarted_sandbox_gets_a_new_bridge() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let launched = place.launch(&text("sleep 600")).await;
        place.find_until(&launched, "it runs", |finding| finding.alive).await;
        place.runtime.stop(&place.sandbox).await.unwrap();
        place.runtime.start(&place.sandbox).await.unwrap();
        let found = eventually("an answer", async || {
            let asked = [(launched.id, launched.nonce)];
            Some(place.bridge.probe(&asked, false).await.ok()?.remove(0))
        })
        .await;
        // The command was either killed with everything else, or ended by the signal before: no other outcome is possible.
        let known = matches!(found.sentinel, Sentinel::Absent | Sentinel::Complete(Ending::Signaled(_)));
        assert!(!found.alive && !found.supervised && known, "{found:?}");
        assert_eq!(place.run(&text("exit 2")).await.ending, Some(Ending::Exited(2)));
    }
}

#[tokio::test]
async fn sandbox_without_shell_gets_the_resident_bridge() {
    let bare = |body: &mut bollard::models::ContainerCreateBody| {
        let strip = "cd /bin; for f in *; do [ $f = busybox ] || rm -f $f; done; rm -rf /sbin /usr; exec /bin/busybox sleep 86400";
        body.entrypoint = Some(["/bin/busybox", "sh", "-c", strip].map(str::to_owned).to_vec());
    };
    let Some(place) = Place::tuned(Image::Busybox, bare).await else { return };
    let shell = ["sh", "-c", "true"].map(str::to_owned);
    eventually("no shell is left", async || {
        let ran = place.runtime.exec(&place.sandbox, &shell).await.ok()?.collect(1000).await;
        matches!(ran, Err(RuntimeError::NotStarted { .. })).then_some(())
    })
    .await;
    let state = place.bridge.prepare().await.unwrap();
    assert_eq!(state.name, "resident", "{state:?}");
    let argv = ["/bin/busybox", "echo", "hi"].map(str::to_owned).to_vec();
    let spec = errand_task::TaskSpec::new(errand_task::Program::Argv(argv), std::time::Duration::from_secs(60));
    let ran = place.run(&spec).await;
    assert_eq!((ran.text().as_str(), ran.ending), ("hi\n", Some(Ending::Exited(0))));
    // Without a shell, a text cannot run, and the outcome says so.
    assert!(matches!(place.run(&text("exit 0")).await.ending, Some(Ending::FailedToStart { .. })));
}

#[tokio::test]
async fn spawner_without_bridge_stays_idle() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let launched = place.launch(&text("sleep 600")).await;
        place.find_until(&launched, "it runs", |finding| finding.alive).await;
        // The spawner is the leader of its session: its spares have the same name.
        let leaders = "for f in $(grep -lx errand-spawner /proc/[0-9]*/comm); do \
                       set -- $(cat ${f%comm}stat); [ $1 = $6 ] && echo $1; done";
        let spawner = place.sh(leaders).await.trim().to_owned();
        place.sh("kill -9 $(grep -lx errand-bridge /proc/[0-9]*/comm | cut -d/ -f3)").await;
        // User and system time, over one second by the sandbox's own clock.
        let times = format!("cut -d' ' -f14,15 /proc/{spawner}/stat");
        let printed = place.sh(&format!("{times}; sleep 1; {times}")).await;
        let ticks: Vec<u64> = printed.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert_eq!(ticks.len(), 4, "the spawner keeps its shims: {printed}");
        assert!(ticks[2] + ticks[3] <= ticks[0] + ticks[1] + 10, "{printed}");
    }
}
