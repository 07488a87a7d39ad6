//! How long a sandbox lives, and what remains after it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use errand_runtime::{NotStarted, Runtime as _, RuntimeError};

use crate::support::{
    embedded::{Root, Sandbox, machine, request, sandbox, tuned},
    wait::eventually,
};

/// Set in the child process that makes a sandbox and is then killed; holds the data directory.
const MAKER: &str = "ERRAND_TEST_MAKER";

/// The processes of this machine that have this text in their arguments.
fn processes(wanted: &str) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let holds = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|arguments| String::from_utf8_lossy(&arguments).contains(wanted))
    };
    numbers.filter(holds).collect()
}

/// The directories of cgroups whose name ends with this text.
fn cgroups(wanted: &str) -> Vec<PathBuf> {
    fn below(directory: &Path, wanted: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().ends_with(wanted) {
                    found.push(entry.path());
                }
                below(&entry.path(), wanted, found);
            }
        }
    }
    let mut found = Vec::new();
    below(Path::new("/sys/fs/cgroup"), wanted, &mut found);
    found
}

/// The loop devices whose file is below this directory.
fn devices(directory: &Path) -> BTreeSet<String> {
    let all = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = all.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file.trim()).starts_with(directory)).collect()
}

/// This machine's mounts whose entry names this directory.
fn mounts(directory: &Path) -> BTreeSet<String> {
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let name = directory.to_str().unwrap();
    own.lines().filter(|line| line.contains(name)).map(str::to_owned).collect()
}

/// The name of the sandbox's current life, which its init has in its arguments.
fn life(sandbox: &Sandbox) -> String {
    fs::read_to_string(sandbox.directory().join("life")).unwrap()
}

#[tokio::test]
async fn removed_sandbox_leaves_nothing() {
    let Some(sandbox) = sandbox(Root::Host).await else { return };
    let none = BTreeSet::new();
    assert!(!processes(&life(&sandbox)).is_empty());
    sandbox.sh("setsid sleep 300 >/dev/null 2>&1 & nohup sh -c 'sleep 300' >/dev/null 2>&1 &").await;
    sandbox.sh("mkdir -p /workspace/shut/in && touch /workspace/shut/in/file && chmod 0 /workspace/shut").await;
    assert_eq!(mounts(sandbox.machine.data_dir()), none, "its mounts are its own");
    let life = life(&sandbox);
    sandbox.runtime.remove(sandbox.id()).await.unwrap();

    assert!(processes(&life).is_empty());
    assert!(cgroups(&sandbox.found.name).is_empty());
    assert_eq!(mounts(sandbox.machine.data_dir()), none);
    let left: Vec<_> = fs::read_dir(sandbox.machine.data_dir().join("sandboxes")).unwrap().flatten().collect();
    let left: Vec<_> = left.iter().map(|entry| entry.file_name()).filter(|name| name != ".bin").collect();
    assert!(left.is_empty(), "{left:?}");
    // The kernel releases a device asynchronously.
    eventually("the device is free", async || devices(sandbox.machine.data_dir()).is_empty().then_some(())).await;
}

#[tokio::test]
async fn files_but_no_processes_outlive_a_stop() {
    let Some(sandbox) = sandbox(Root::Host).await else { return };
    sandbox.sh("echo kept >/workspace/file; echo kept >/tmp/file; sleep 300 >/dev/null 2>&1 &").await;
    sandbox.runtime.stop(sandbox.id()).await.unwrap();
    sandbox.runtime.start(sandbox.id()).await.unwrap();
    assert_eq!(sandbox.sh("cat /workspace/file /tmp/file").await, "kept\nkept\n");
    assert_eq!(sandbox.sh("grep -l sleep /proc/[0-9]*/comm 2>/dev/null").await, "");
}

#[tokio::test]
async fn sandbox_outlives_the_kill_of_its_server() {
    if let Some(data) = std::env::var_os(MAKER) {
        return make_and_wait(PathBuf::from(data)).await;
    }
    let Some(machine) = machine().await else { return };
    let mut maker = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::life::sandbox_outlives_the_kill_of_its_server", "--nocapture"])
        .env(MAKER, machine.data_dir())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let name =
        eventually("the sandbox is made", async || fs::read_to_string(machine.data_dir().join("made")).ok()).await;
    maker.kill().unwrap();
    maker.wait().unwrap();

    let runtime = machine.runtime();
    let found = runtime.inspect(&name).await.unwrap();
    assert!(found.running);
    let sandbox = Sandbox { machine, runtime, found };
    assert_eq!(sandbox.sh("cat /tmp/file; grep -lx sleep /proc/[0-9]*/comm 2>/dev/null | wc -l").await, "before\n1\n");
    assert_eq!(sandbox.runtime.start(sandbox.id()).await.unwrap(), sandbox.found, "it lives the same life");
    let life = life(&sandbox);
    sandbox.runtime.remove(sandbox.id()).await.unwrap();
    eventually("its processes are gone", async || processes(&life).is_empty().then_some(())).await;
}

/// Makes a sandbox with a process in it, reports that, and waits to be killed.
async fn make_and_wait(data: PathBuf) {
    use errand_embedded::{EmbeddedOptions, EmbeddedRuntime};
    let runtime = EmbeddedRuntime::new(EmbeddedOptions::new(&data, errand::guest::program()));
    let found = runtime.create(&request("host".to_owned())).await.unwrap();
    let argv = ["sh", "-c", "echo before >/tmp/file; exec sleep 300 >/dev/null 2>&1"].map(str::to_owned);
    drop(runtime.exec(&found.runtime_id, &argv).await.unwrap());
    let argv = ["sh", "-c", "until [ -e /tmp/file ]; do :; done"].map(str::to_owned);
    runtime.exec(&found.runtime_id, &argv).await.unwrap().collect(100).await.unwrap();
    fs::write(data.join("part"), &found.name).unwrap();
    fs::rename(data.join("part"), data.join("made")).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn concurrent_creators_leave_one_sandbox() {
    let Some(machine) = machine().await else { return };
    let wanted = request("host".to_owned());
    let runtimes: Vec<_> = (0..5).map(|_| machine.runtime()).collect();
    let made = futures_util::future::join_all(runtimes.iter().map(|runtime| runtime.create(&wanted))).await;
    let ids: BTreeSet<_> = made.into_iter().map(|made| made.unwrap().runtime_id).collect();
    let left = runtimes[0].inspect(&wanted.name).await.unwrap();
    assert!(left.running && ids.contains(&left.runtime_id));
    let sandbox = Sandbox { runtime: machine.runtime(), machine, found: left };
    assert_eq!(sandbox.sh("echo here").await, "here\n");
    assert_eq!(fs::read_dir(sandbox.directory().parent().unwrap()).unwrap().flatten().count(), 2, "and the program");
}

#[tokio::test]
async fn data_directory_may_have_a_long_name() {
    let Some(mut machine) = machine().await else { return };
    machine.deepen(&format!("{}/{}", "x".repeat(100), "y".repeat(100)));
    let runtime = machine.runtime();
    let found = runtime.create(&request("host".to_owned())).await.unwrap();
    let sandbox = Sandbox { machine, runtime, found };
    assert_eq!(sandbox.sh("echo here").await, "here\n");
}

#[tokio::test]
async fn sandbox_recovers_from_its_process_limit() {
    let Some(sandbox) = tuned(Root::Host, |spec| spec.pids_limit = 16).await else { return };
    let sleeper = ["sleep", "300"].map(str::to_owned);
    let mut refused = None;
    for _ in 0..64 {
        if let Err(error) = sandbox.runtime.exec(sandbox.id(), &sleeper).await {
            refused = Some(error);
            break;
        }
    }
    match refused {
        Some(RuntimeError::NotStarted { reason: NotStarted::Other, detail }) => {
            assert!(detail.contains("limit of processes"), "{detail}")
        }
        other => panic!("{other:?}"),
    }
    sandbox.runtime.stop(sandbox.id()).await.unwrap();
    sandbox.runtime.start(sandbox.id()).await.unwrap();
    assert_eq!(sandbox.sh("echo here").await, "here\n");
}

#[tokio::test]
async fn sandboxed_process_cannot_end_or_read_init() {
    let Some(sandbox) = sandbox(Root::Host).await else { return };
    sandbox.sh("kill -TERM 1; kill -KILL 1; kill -STOP 1; kill -INT 1").await;
    assert_eq!(sandbox.sh("ls /proc/1/fd /proc/1/root 2>&1 | grep -c 'Permission denied'").await, "2\n");
    assert!(sandbox.runtime.inspect(sandbox.id()).await.unwrap().running);
}

#[tokio::test]
async fn half_made_sandbox_is_cleared_away() {
    let Some(machine) = machine().await else { return };
    let wanted = request("host".to_owned());
    let directory = machine.data_dir().join("sandboxes").join(&wanted.name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("disk.img"), "half").unwrap();
    let gone = machine.data_dir().join("sandboxes/.gone-0");
    fs::create_dir(&gone).unwrap();
    let runtime = machine.runtime();
    assert!(matches!(runtime.inspect(&wanted.name).await, Err(RuntimeError::NoSuchSandbox { .. })));
    let found = runtime.create(&wanted).await.unwrap();
    let sandbox = Sandbox { machine, runtime, found };
    assert_eq!(sandbox.sh("echo here").await, "here\n");
    assert!(!gone.exists());
}
