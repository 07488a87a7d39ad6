//! What every runtime must do. Tests only the contract; [`runtime_conformance`] makes one test of each case.

use std::sync::Arc;

use errand_runtime::{CreateSandbox, Found, Runtime, RuntimeError};
use errand_task::{BotId, SandboxId, SandboxSpec, TenantId};

/// A runtime and an image available to it.
pub struct Place {
    pub runtime: Arc<dyn Runtime>,
    pub image: String,
    /// The kernel capabilities of commands, in the format of `/proc`.
    pub capabilities: &'static str,
    /// Whether the image's root can be made writable.
    pub root_can_be_written: bool,
    /// Whether the runtime reports how processes have exited.
    pub reports_exit_status: bool,
    /// Removes a sandbox by name, in any state.
    pub remove: Arc<dyn Fn(&str)>,
}

/// A sandbox that is removed when the test ends.
struct Made {
    found: Found,
    request: CreateSandbox,
    remove: Arc<dyn Fn(&str)>,
}

impl Drop for Made {
    fn drop(&mut self) {
        (self.remove)(&self.request.name);
    }
}

/// A request for a sandbox of this image, with values for everything a test does not care about.
pub fn request_of(image: String) -> CreateSandbox {
    let id = SandboxId::new();
    CreateSandbox {
        name: format!("errand-test-{id}"),
        id,
        tenant: TenantId::local(),
        bot: BotId::new("bot").unwrap(),
        spec: SandboxSpec {
            image,
            memory_bytes: 128 << 20,
            cpus: 0.5,
            pids_limit: 64,
            network_mode: "none".to_owned(),
            writable_root: false,
            user: None,
            env: [("PLACE".to_owned(), "here".to_owned())].into(),
            idle_stop_after: None,
        },
        asked: Default::default(),
    }
}

impl Place {
    fn request(&self) -> CreateSandbox {
        request_of(self.image.clone())
    }

    async fn make(&self, tune: impl FnOnce(&mut SandboxSpec)) -> Made {
        let mut request = self.request();
        tune(&mut request.spec);
        Made { found: self.runtime.create(&request).await.unwrap(), request, remove: Arc::clone(&self.remove) }
    }

    async fn sh(&self, sandbox: &Found, script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let said = self.runtime.exec(&sandbox.runtime_id, &argv).await.unwrap().collect(1 << 20).await.unwrap();
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
    }
}

pub async fn sandbox_goes_through_its_whole_life(place: Place) {
    let made = place.make(|_| {}).await;
    let found = place.runtime.inspect(&made.request.name).await.unwrap();
    assert_eq!(found, made.found);
    assert!(found.running);
    assert_eq!(found.spec.image, made.request.spec.image);
    assert_eq!(place.runtime.start(&found.runtime_id).await.unwrap(), found, "a running one is left as it is");

    place.runtime.stop(&found.runtime_id).await.unwrap();
    place.runtime.stop(&found.runtime_id).await.unwrap();
    assert!(!place.runtime.inspect(&found.runtime_id).await.unwrap().running);
    let argv = ["true".to_owned()];
    assert!(matches!(place.runtime.exec(&found.runtime_id, &argv).await, Err(RuntimeError::NotRunning { .. })));

    let again = place.runtime.start(&found.runtime_id).await.unwrap();
    assert!(again.running);
    assert_ne!(again.incarnation, found.incarnation, "another life");

    place.runtime.remove(&found.runtime_id).await.unwrap();
    place.runtime.remove(&found.runtime_id).await.unwrap();
    assert!(matches!(place.runtime.inspect(&found.runtime_id).await, Err(RuntimeError::NoSuchSandbox { .. })));
    assert!(matches!(place.runtime.exec(&found.runtime_id, &argv).await, Err(RuntimeError::NoSuchSandbox { .. })));
}

pub async fn limits_and_labels_are_as_requested(place: Place) {
    let made = place.make(|_| {}).await;
    let asked = &made.request.spec;
    let has = &made.found.spec;
    assert_eq!((has.memory_bytes, has.pids_limit, has.cpus), (asked.memory_bytes, asked.pids_limit, asked.cpus));
    assert_eq!(has.network_mode, "none");
    assert_eq!(made.found.labels["errand.tenant"], "local");
    assert_eq!(made.found.labels["errand.bot"], "bot");
    assert_eq!(made.found.labels["errand.sandbox"], made.request.id.to_string());
    assert_eq!(place.sh(&made.found, "printf %s \"$PLACE\"; pwd").await, "here/workspace\n");
    let status = place.sh(&made.found, "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status").await;
    for set in ["CapEff", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t{}", place.capabilities)), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

pub async fn only_tmp_and_workspace_can_be_written(place: Place) {
    for user in [None, Some("65534:65534".to_owned())] {
        let made = place.make(|spec| spec.user.clone_from(&user)).await;
        let said =
            place.sh(&made.found, "for d in / /etc /tmp /workspace; do touch $d/x 2>/dev/null && echo $d; done").await;
        assert_eq!(said, "/tmp\n/workspace\n", "as {user:?}");
    }
    if !place.root_can_be_written {
        let mut request = place.request();
        request.spec.writable_root = true;
        match place.runtime.create(&request).await {
            Err(RuntimeError::Refused { detail }) => assert!(detail.contains("writable_root"), "{detail}"),
            other => panic!("{other:?}"),
        }
        return;
    }
    let open = place.make(|spec| spec.writable_root = true).await;
    assert_eq!(place.sh(&open.found, "touch /x && echo written").await, "written\n");
}

pub async fn orphans_are_reaped(place: Place) {
    let made = place.make(|_| {}).await;
    let script = "(sleep 0.1 &) ; (sh -c 'exit 3' &) ; sleep 0.5; for s in /proc/[0-9]*/stat; do cut -d' ' -f3 $s 2>/dev/null; done | grep -c Z";
    assert_eq!(place.sh(&made.found, script).await, "0\n");
}

pub async fn missing_image_leaves_no_sandbox(place: Place) {
    let mut request = place.request();
    request.spec.image = "errand-test/no-such-image:none".to_owned();
    match place.runtime.create(&request).await {
        Err(RuntimeError::NoSuchImage { image }) => assert_eq!(image, request.spec.image),
        other => panic!("{other:?}"),
    }
    assert!(matches!(place.runtime.inspect(&request.name).await, Err(RuntimeError::NoSuchSandbox { .. })));
}

pub async fn failed_start_leaves_no_sandbox(place: Place) {
    let mut request = place.request();
    request.spec.user = Some("no-such-user".to_owned());
    assert!(matches!(place.runtime.create(&request).await, Err(RuntimeError::Refused { .. })));
    assert!(matches!(place.runtime.inspect(&request.name).await, Err(RuntimeError::NoSuchSandbox { .. })));
}

pub async fn leftover_sandbox_of_a_crash_is_replaced(place: Place) {
    let made = place.make(|_| {}).await;
    let again = place.runtime.create(&made.request).await.unwrap();
    assert_ne!(again.runtime_id, made.found.runtime_id);
    assert!(matches!(place.runtime.inspect(&made.found.runtime_id).await, Err(RuntimeError::NoSuchSandbox { .. })));
}

pub async fn exec_takes_input_and_separates_streams(place: Place) {
    let made = place.make(|_| {}).await;
    let argv = ["sh", "-c", "read -r line; echo \"out $line\"; echo err >&2"].map(str::to_owned);
    let mut exec = place.runtime.exec(&made.found.runtime_id, &argv).await.unwrap();
    exec.write(b"hello\n").await.unwrap();
    let said = exec.collect(1000).await.unwrap();
    assert_eq!((&said.stdout[..], &said.stderr[..]), (&b"out hello\n"[..], &b"err\n"[..]));
}

pub async fn missing_program_is_explained(place: Place) {
    let made = place.make(|_| {}).await;
    let argv = ["no-such-program".to_owned()];
    let error = match place.runtime.exec(&made.found.runtime_id, &argv).await {
        Err(error) => error,
        Ok(exec) => exec.collect(10_000).await.expect_err("no such program"),
    };
    assert!(
        matches!(error, RuntimeError::NotStarted { reason: errand_runtime::NotStarted::NotFound, .. }),
        "{error:?}"
    );
}

pub async fn exit_status_is_the_process_own_or_none(place: Place) {
    let made = place.make(|_| {}).await;
    for (script, wanted) in [("echo hi", 0), ("exit 3", 3), ("kill -9 $$", 137)] {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let exec = place.runtime.exec(&made.found.runtime_id, &argv).await.unwrap();
        let (_, status) = exec.collect_with_status(1000).await.unwrap();
        assert_eq!(status, place.reports_exit_status.then_some(wanted), "{script}");
    }
}

pub async fn files_are_put_whole_or_refused(place: Place) {
    let made = place.make(|_| {}).await;
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    place.runtime.put_file(&made.found.runtime_id, "/tmp/a/b/file", &content, 0o640).await.unwrap();
    assert_eq!(place.sh(&made.found, "wc -c </tmp/a/b/file; ls /tmp/a/b").await, "3000000\nfile\n");
    for content in [&b"x"[..], &content] {
        let refused = place.runtime.put_file(&made.found.runtime_id, "/etc/file", content, 0o600).await;
        assert!(matches!(refused, Err(RuntimeError::NotWritten { .. })), "{refused:?}");
    }
}

/// One test per case, in one module per place.
#[macro_export]
macro_rules! runtime_conformance {
    ($($name:ident: $make:expr;)+) => {
        $(mod $name {
            use super::*;
            $crate::runtime_conformance! { @cases $make;
                sandbox_goes_through_its_whole_life limits_and_labels_are_as_requested
                only_tmp_and_workspace_can_be_written orphans_are_reaped missing_image_leaves_no_sandbox
                failed_start_leaves_no_sandbox leftover_sandbox_of_a_crash_is_replaced
                exec_takes_input_and_separates_streams missing_program_is_explained
                exit_status_is_the_process_own_or_none files_are_put_whole_or_refused
            }
        })+
    };
    (@cases $make:expr; $($case:ident)+) => {
        $(#[tokio::test]
        async fn $case() {
            if let Some(place) = $make.await {
                $crate::conformance::runtime::$case(place).await;
            }
        })+
    };
}
