//! Attacks on processes of the machine and of other sandboxes, and on the sandbox's own init.

use super::pair::{USERS, pair, pair_as};

#[tokio::test]
async fn only_own_processes_are_visible() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let said = pair.sh("cat /proc/[0-9]*/comm; cat /proc/[0-9]*/comm").await;
        assert!(said.lines().all(|name| ["cat", "errand-init", "sh"].contains(&name)), "as {user:?}: {said}");
        assert!(said.contains("errand-init"), "as {user:?}: {said}");
        // Processes that exist by pid, even if no list shows them.
        let script = "import os\nfound = [pid for pid in range(1, 70000) if os.path.exists(f'/proc/{pid}')]\nprint(len(found) < 10)";
        assert_eq!(pair.python(script).await, "True\n", "as {user:?}");
        pair.is_unharmed().await;
    }
}

/// Python that attacks every process by its pid: the machine's, the other sandbox's and its own init.
const KILLING: &str = "
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
own = [os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0)]
for number in [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP]:
    for pid in range(1, max(70000, TARGET + 1)):
        if pid not in own:
            for send in [os.kill, os.killpg]:
                try:
                    send(pid, number)
                except OSError:
                    pass
for pid in [TARGET, INIT]:
    if pid not in own:
        try:
            print('held', os.pidfd_open(pid))
        except ProcessLookupError:
            pass
print('tried')
";

#[tokio::test]
async fn outside_processes_and_init_survive_signals() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let script = KILLING.replace("TARGET", &pair.process().to_string()).replace("INIT", &pair.init().to_string());
        assert_eq!(pair.python(&script).await, "tried\n", "as {user:?}");
        pair.is_unharmed().await;
        // Every process that the command may signal, itself included.
        pair.sh("kill -KILL -1").await;
        pair.is_unharmed().await;
    }
}

#[tokio::test]
async fn outside_processes_cannot_be_traced_or_limited() {
    let Some(mut pair) = pair().await else { return };
    for pid in [pair.process(), pair.init()] {
        let (attach, seize, pid) = (format!("16, {pid}, 0, 0"), format!("0x4206, {pid}, 0, 0"), pid.to_string());
        let vector = format!("{pid}, vector, 1, vector, 1, 0");
        let calls = [
            ("attach", libc::SYS_ptrace, &*attach),
            ("seize", libc::SYS_ptrace, &seize),
            ("process_vm_readv", libc::SYS_process_vm_readv, &vector),
            ("process_vm_writev", libc::SYS_process_vm_writev, &vector),
            ("prlimit", libc::SYS_prlimit64, &format!("{pid}, 7, 0, b'\\0' * 16")),
            ("setpriority", libc::SYS_setpriority, &format!("0, {pid}, 19")),
            ("sched_setaffinity", libc::SYS_sched_setaffinity, &format!("{pid}, 8, b'\\1' + b'\\0' * 7")),
            ("pidfd_open", libc::SYS_pidfd_open, &format!("{pid}, 0")),
        ];
        pair.are_refused(&calls, "ESRCH").await;
    }
    pair.is_unharmed().await;
}

#[tokio::test]
async fn init_cannot_be_traced_read_or_changed() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let vector = "1, vector, 1, vector, 1, 0";
        let calls = [
            ("attach", libc::SYS_ptrace, "16, 1, 0, 0"),
            ("seize", libc::SYS_ptrace, "0x4206, 1, 0, 0"),
            ("process_vm_readv", libc::SYS_process_vm_readv, vector),
            ("process_vm_writev", libc::SYS_process_vm_writev, vector),
            ("pidfd_getfd", libc::SYS_pidfd_getfd, "os.pidfd_open(1), 3, 0"),
            // A limit of no descriptors or no CPU time would kill the init, or make it unable to accept.
            ("prlimit files", libc::SYS_prlimit64, "1, 7, b'\\0' * 16, 0"),
            ("prlimit time", libc::SYS_prlimit64, "1, 0, b'\\0' * 16, 0"),
        ];
        pair.are_refused(&calls, "EPERM").await;
        // Root inside may list files that it cannot open.
        let script = "for f in mem environ maps auxv fd/3 fdinfo/3 root/usr cwd/x exe stack syscall; do \
                      head -c 1 /proc/1/$f >/dev/null 2>&1 && echo $f; done; \
                      for f in fd/3 fd/4 root cwd exe; do readlink /proc/1/$f; done; ls /proc/1/root/ 2>/dev/null; echo tried";
        assert_eq!(pair.sh(script).await, "tried\n", "as {user:?}");
        pair.is_unharmed().await;
    }
}

/// Python that sends the init SIGTERM in every way in which a signal has no sender, or a forged one.
const FORGING: &str = "
import fcntl, signal
for code in (-1, -2, -3, -4, -5, -6, -60, 0, 1, 0x80):
    info = struct.pack('iiiiii', 15, 0, code, 0, 0, 0) + b'\\0' * 104
    call('queue', QUEUE, 1, 15, info)
    call('pidfd', PIDFD, os.pidfd_open(1), 15, info, 0)
    call('thread', THREAD, 1, 1, 15, info)
# A signal that a file makes when it can be read.
reading, writing = os.pipe()
fcntl.fcntl(reading, fcntl.F_SETOWN, 1)
fcntl.fcntl(reading, 10, 15)
fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.write(writing, b'x')
print('tried')
";

#[tokio::test]
async fn forged_signals_do_not_end_the_init() {
    for user in USERS {
        let Some(mut pair) = pair_as(user).await else { return };
        let script = FORGING
            .replace("QUEUE", &libc::SYS_rt_sigqueueinfo.to_string())
            .replace("PIDFD", &libc::SYS_pidfd_send_signal.to_string())
            .replace("THREAD", &libc::SYS_rt_tgsigqueueinfo.to_string());
        let said = pair.calling(&script).await;
        assert!(said.contains("queue done") && said.ends_with("tried\n"), "as {user:?}: {said}");
        pair.is_unharmed().await;
    }
}
