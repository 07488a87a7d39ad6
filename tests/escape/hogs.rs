//! Exhausting resources: processes, memory, the disk.

use std::{fs, os::unix::fs::MetadataExt as _, process::Command};

use errand_runtime::Runtime as _;

use super::pair::{Pair, is_limited, pair, tuned};
use crate::support::wait::eventually;

const PIDS: u64 = 64;
const MEMORY: u64 = 96 << 20;
/// The size of each tested sandbox's disk.
const DISK: u64 = 64 << 20;
/// What the rest of the machine may use meanwhile: other tests run beside this one.
const OTHERS: u64 = 1 << 30;

/// A fork bomb: each process forks as often as it can, and then keeps trying, slowly enough that the rest of the machine can still work.
/// Every process has the bomb's name in its arguments.
const BOMB: &str = "
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() > 0:
    os._exit(0)
os.setsid()
for descriptor in range(3):
    os.close(descriptor)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
";

/// The number of processes of this machine that have this text in their arguments.
fn processes(mark: &str) -> u64 {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let holds = |entry: &fs::DirEntry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|arguments| String::from_utf8_lossy(&arguments).contains(mark))
    };
    all.filter(holds).count() as u64
}

#[tokio::test]
async fn fork_bomb_stays_within_limit_and_ends() {
    let Some(mut pair) = tuned(|spec| spec.pids_limit = PIDS).await else { return };
    let mark = format!("bomb-{}", pair.secret());
    pair.inside.runtime.put_file(pair.inside.id(), "/workspace/bomb.py", BOMB.as_bytes(), 0o644).await.unwrap();
    assert_eq!(pair.sh(&format!("python3 /workspace/bomb.py {mark}")).await, "");
    let most = eventually("the bomb is at its limit", async || {
        let count = processes(&mark);
        (count + 8 >= PIDS).then_some(count)
    })
    .await;
    // The bomb never exceeds the limit, however long it tries: each of its processes is a process of the machine.
    for _ in 0..50 {
        assert!(Command::new("true").status().unwrap().success());
        assert!(processes(&mark) <= PIDS, "{most}");
    }
    pair.others_are_unharmed().await;
    pair.inside.runtime.stop(pair.inside.id()).await.unwrap();
    assert_eq!(processes(&mark), 0);
    pair.inside.runtime.start(pair.inside.id()).await.unwrap();
    pair.is_unharmed().await;
}

/// The memory that this machine can still provide, in bytes.
fn available(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse::<u64>().unwrap() * 1024
}

/// Python that allocates memory in many ways, each in a process of its own. Prints how each process ended, and how far it got.
const FILLING: &str = "
import mmap, os, socket
MiB = 1 << 20
read, write = os.pipe()
def anonymous():
    held = []
    while True:
        held.append(b'x' * MiB)
        os.write(write, b'.')
def shared():
    held = mmap.mmap(-1, 1 << 30)
    for at in range(0, 1 << 30, MiB):
        held[at:at + MiB] = b'x' * MiB
        os.write(write, b'.')
def file():
    held = os.memfd_create('x')
    while True:
        os.write(held, b'x' * MiB)
        os.write(write, b'.')
def pages():
    held = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    for at in range(0, 1 << 40, 2 * MiB):
        held[at] = 1
        if at % (512 * MiB) == 0:
            os.write(write, b'.')
for way in (anonymous, shared, file, pages):
    child = os.fork()
    if child == 0:
        open('/proc/self/oom_score_adj', 'w').write('1000')
        way()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(way.__name__, 'killed' if os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9 else status,
          len(os.read(read, 1 << 16)) * MiB <= LIMIT)
";

#[tokio::test]
async fn memory_hog_alone_is_killed() {
    let Some(mut pair) = tuned(|spec| spec.memory_bytes = MEMORY).await else { return };
    if !is_limited("memory-limit") {
        return;
    }
    let before = available("MemAvailable:");
    let said = pair.python(&FILLING.replace("LIMIT", &MEMORY.to_string())).await;
    assert_eq!(said, "anonymous killed True\nshared killed True\nfile killed True\npages killed True\n");
    assert!(available("MemAvailable:") + OTHERS > before);
    pair.is_unharmed().await;
}

#[tokio::test]
async fn tmpfs_memory_is_limited_too() {
    let Some(mut pair) = pair().await else { return };
    let said = pair.sh("head -c 1G /dev/zero >/dev/shm/x 2>/dev/null; wc -c </dev/shm/x; rm /dev/shm/x").await;
    assert!(said.trim().parse::<u64>().unwrap() <= 64 << 20, "{said}");
    // The space between the mounts is memory too.
    assert_eq!(
        pair.sh("for d in / /dev /run /root /home /etc; do (echo x >$d/x) 2>/dev/null && echo $d; done; echo tried")
            .await,
        "tried\n"
    );
    pair.is_unharmed().await;
}

#[tokio::test]
async fn full_disk_affects_only_its_sandbox() {
    let Some(mut pair) = pair().await else { return };
    if !is_limited("disk-limit") {
        return one_file_is_limited(pair).await;
    }
    let free = free(&pair);
    let script = "cd /workspace; head -c 1G /dev/zero >a; head -c 1G /dev/zero >/tmp/b; echo x >c; \
                  stat -c %s a /tmp/b | awk '{ all += $1 } END { print all }'";
    let said = pair.sh(script).await;
    assert!(said.matches("No space left on device").count() >= 2, "{said}");
    let held: u64 = said.lines().find_map(|line| line.parse().ok()).unwrap();
    assert!(held > DISK / 2 && held <= DISK, "{said}");
    let image = fs::metadata(pair.inside.directory().join("disk.img")).unwrap();
    assert!(image.blocks() * 512 <= DISK + (1 << 20) && image.len() == DISK, "{image:?}");
    assert!(self::free(&pair) + OTHERS > free, "the machine's disk");
    pair.others_are_unharmed().await;

    assert_eq!(pair.sh("rm /workspace/* /tmp/b; echo x >/workspace/d && echo written").await, "written\n");
    // File names take space too; a file that is one hole takes none.
    let said = pair.sh("cd /workspace; mkdir n; i=0; while true >n/$i; do i=$((i+1)); done 2>/dev/null; truncate -s 100G hole 2>/dev/null; rm -rf n; echo x >d && echo written").await;
    assert_eq!(said, "written\n");
    pair.is_unharmed().await;
}

/// Without a limit on the sum, each file is limited.
async fn one_file_is_limited(mut pair: Pair) {
    let said =
        pair.sh("cd /tmp; head -c 1G /dev/zero >x 2>/dev/null; truncate -s 1G x 2>/dev/null; wc -c <x; rm x").await;
    assert_eq!(said.trim().parse::<u64>().unwrap(), DISK, "{said}");
    pair.is_unharmed().await;
}

/// The free bytes of the file system that holds the sandboxes.
fn free(pair: &Pair) -> u64 {
    let found = rustix::fs::statvfs(pair.inside.machine.data_dir()).unwrap();
    found.f_bavail * found.f_frsize
}
