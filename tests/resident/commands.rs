//! How commands are started, their environment, and the resources they use.

use std::time::Duration;

use errand_task::{Ending, Program, ResourceLimits, StartFailure, TaskSpec, sentinel::Sentinel};

use super::place::{EVERYWHERE, Place, SETTINGS, Where, text};
use crate::support::{
    docker::Image,
    embedded::Root,
    wait::{LIMIT, eventually},
};

fn argv(arguments: &[&str]) -> TaskSpec {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    TaskSpec::new(Program::Argv(arguments), Duration::from_secs(60))
}

async fn failure(place: &Place, spec: &TaskSpec) -> (StartFailure, Option<i32>) {
    match place.run(spec).await.ending {
        Some(Ending::FailedToStart { failure, errno, .. }) => (failure, errno),
        other => panic!("it did not fail to start: {other:?}"),
    }
}

#[tokio::test]
async fn start_failures_are_distinguished_with_errno() {
    for place in EVERYWHERE {
        let embedded = matches!(place, Where::Embedded(_));
        let Some(place) = Place::on(place).await else { continue };
        let script = "cd /tmp; echo '#!/no/such/interpreter' >orphan; chmod 755 orphan; echo x >plain; chmod 644 plain; \
                      mkdir closed; chmod 000 closed";
        place.sh(script).await;
        let cases = [
            (argv(&["no-such-program"]), StartFailure::NotFound, 2),
            (argv(&["/no/such/program"]), StartFailure::NotFound, 2),
            (argv(&["/tmp/plain"]), StartFailure::NotExecutable, 13),
            (argv(&["/tmp"]), StartFailure::NotExecutable, 13),
            (argv(&["/tmp/orphan"]), StartFailure::BadInterpreter, 2),
            (TaskSpec { workdir: Some("/no/such".to_owned()), ..text("true") }, StartFailure::NoSuchDirectory, 2),
            (TaskSpec { workdir: Some("/etc/passwd".to_owned()), ..text("true") }, StartFailure::NoSuchDirectory, 20),
            (TaskSpec { user: Some("nosuchuser".to_owned()), ..text("true") }, StartFailure::NoSuchUser, 2),
            // In an embedded sandbox, the change to that user is refused instead.
            (
                TaskSpec {
                    user: Some("65534:65534".to_owned()),
                    workdir: Some("/tmp/closed".to_owned()),
                    ..text("true")
                },
                StartFailure::NotPermitted,
                if embedded { 1 } else { 13 },
            ),
        ];
        for (spec, wanted, errno) in cases {
            assert_eq!(failure(&place, &spec).await, (wanted, Some(errno)), "{:?} {:?}", spec.program, spec.workdir);
        }
    }
}

#[tokio::test]
async fn refused_fork_is_a_start_failure() {
    let tune = |body: &mut bollard::models::ContainerCreateBody| {
        body.host_config.as_mut().unwrap().pids_limit = Some(40);
    };
    let Some(place) = Place::tuned(Image::Debian, tune).await else { return };
    // All processes that the limit allows: which step of the launch fails then depends on timing.
    let hog = place.launch(&text("i=0; while [ $i -lt 100 ]; do sleep 600 & i=$((i+1)); done 2>/dev/null; wait")).await;
    place.find_until(&hog, "it runs", |finding| finding.alive).await;
    let mut failures = Vec::new();
    // The hog reaches the limit some time after its start.
    let deadline = std::time::Instant::now() + LIMIT;
    while std::time::Instant::now() < deadline {
        let (id, nonce) = (errand_task::TaskId::new(), errand_task::Nonce::new());
        match place.bridge.launch(id, nonce, &text("true"), SETTINGS, &[]).await {
            Ok(attachment) => {
                let launched = super::place::Launched { id, nonce, attachment };
                match launched.ran().await.ending {
                    Some(Ending::FailedToStart { failure, errno, .. }) => failures.push((failure, errno)),
                    Some(Ending::Exited(_)) | None => {}
                    other => panic!("{other:?}"),
                }
            }
            Err(error) => panic!("{error}"),
        }
        if failures.contains(&(StartFailure::ForkRefused, Some(11))) {
            return;
        }
    }
    panic!("no fork was refused: {failures:?}");
}

#[tokio::test]
async fn command_runs_as_the_requested_user() {
    for place in [Image::Busybox, Image::Debian] {
        let Some(place) = Place::on(place).await else { continue };
        let spec = TaskSpec {
            user: Some("65534:65534".to_owned()),
            ..text("id -u; id -g; id -G; touch /tmp/mine && stat -c %u /tmp/mine")
        };
        assert_eq!(place.run(&spec).await.text(), "65534\n65534\n65534\n65534\n");
        let long = format!("id -u # {}", "x".repeat(200 * 1024));
        let spec = TaskSpec { user: Some("65534".to_owned()), ..text(&long) };
        assert_eq!(place.run(&spec).await.text(), "65534\n");
    }
}

#[tokio::test]
async fn clean_environment_holds_requested_variables_and_mark() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        let spec =
            TaskSpec { clean_env: true, env: [("A".to_owned(), "b c".to_owned())].into(), ..argv(&["/usr/bin/env"]) };
        let launched = place.launch(&spec).await;
        let mark = format!("ERRAND_TASK_ID={}", launched.id);
        let printed = launched.ran().await.text();
        let mut lines: Vec<&str> = printed.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["A=b c", mark.as_str()]);
    }
}

#[tokio::test]
async fn limits_and_niceness_are_as_requested() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let limits =
            ResourceLimits { open_files: Some(77), core_bytes: Some(0), cpu_seconds: Some(1), ..Default::default() };
        let spec = TaskSpec {
            limits,
            nice: 7,
            ..text("ulimit -n; ulimit -c; cut -d' ' -f19 /proc/self/stat; while :; do :; done")
        };
        let ran = place.run(&spec).await;
        assert_eq!(ran.text(), "77\n0\n7\n");
        // The kernel's reaction to exceeding the CPU time limit; the signal depends on whether soft and hard limit are equal.
        assert!(
            matches!(ran.ending, Some(Ending::Signaled(signal)) if [9, 24].contains(&signal.number())),
            "{:?}",
            ran.ending
        );
    }
}

#[tokio::test]
async fn usage_covers_the_whole_tree() {
    for place in [Where::Docker(Image::Debian), Where::Embedded(Root::Host)] {
        let Some(place) = Place::on(place).await else { continue };
        // One grandchild burns half a second of CPU time, and another allocates 50 MB.
        let burn = "sh -c 'end=$(($(date +%s%N) + 500000000)); while [ $(date +%s%N) -lt $end ]; do :; done'; \
                head -c 50000000 /dev/zero | tail -c 50000000 >/dev/null; dd if=/dev/zero of=/tmp/f bs=1M count=8 oflag=direct 2>/dev/null";
        let usage = place.run(&text(burn)).await.usage.unwrap();
        assert!(usage.user_cpu + usage.system_cpu > Duration::from_millis(250), "{usage:?}");
        assert!((40 << 20..200 << 20).contains(&usage.peak_memory_bytes), "{usage:?}");
        assert!(usage.written_bytes >= 8 << 20, "{usage:?}");
    }
}

#[tokio::test]
async fn timeout_is_enforced_without_a_server() {
    for place in EVERYWHERE {
        let Some(place) = Place::on(place).await else { continue };
        let command = "trap '' TERM; (setsid sleep 555 &) ; while :; do sleep 1; done";
        let timeout = Duration::from_secs(1);
        let launched = place.launch(&TaskSpec { timeout, ..text(command) }).await;
        eventually("the child", async || (place.running("sleep 555").await == 1).then_some(())).await;
        // No follower is left, and not even the bridge process.
        drop(launched.attachment);
        place.sh("kill -9 $(grep -lx errand-bridge /proc/[0-9]*/comm | cut -d/ -f3)").await;
        let (id, nonce) = (launched.id, launched.nonce);
        let found = eventually("the result", async || {
            let mut findings = place.bridge.probe(&[(id, nonce)], false).await.ok()?;
            Some(findings.remove(0)).filter(|finding| finding.sentinel != Sentinel::Absent)
        })
        .await;
        assert_eq!(found.sentinel, Sentinel::Complete(Ending::TimedOut { after: timeout }));
        assert_eq!(place.running("sleep 555").await, 0);
    }
}
