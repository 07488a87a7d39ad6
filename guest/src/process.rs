//! Processes as `/proc` shows them, identified so that a process is never confused with a later one that has the same pid.

use std::{fs, io::Read as _};

use rustix::process::{Pid, Signal, kill_process};

/// One process, as of the moment when `/proc` was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its process id.
    pub pid: u32,
    /// Its parent's process id.
    pub parent: u32,
    /// Its process group id.
    pub group: u32,
    /// Its session id.
    pub session: u32,
    /// The device number of its controlling terminal; 0: none.
    pub terminal: i32,
    /// One letter, see proc(5).
    pub state: u8,
    /// CPU time in clock ticks, including that of the children it has waited for.
    pub cpu_ticks: u64,
    /// When the process started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`; none when no such process exists.
    pub fn of(pid: u32) -> Option<Self> {
        let mut text = [0u8; 1024];
        let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        let size = file.read(&mut text).ok()?;
        Self::parse(pid, &text[..size])
    }

    /// Parses the content of `/proc/PID/stat`. The process chooses its name, so the name may hold any bytes.
    pub fn parse(pid: u32, text: &[u8]) -> Option<Self> {
        let after_name = text.iter().rposition(|byte| *byte == b')')? + 1;
        let rest = std::str::from_utf8(&text[after_name..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        let terminal = fields.next()?.parse().ok()?;
        // Fields 8 to 13 come after the terminal (field 7); user and system time are 14 and 15, those of children 16 and 17, the start is
        // 22.
        let mut cpu_ticks = fields.nth(6)?.parse().ok()?;
        for _ in 0..3 {
            cpu_ticks += fields.next()?.parse::<u64>().ok()?;
        }
        let start_ticks = fields.nth(4)?.parse().ok()?;
        Some(Self { pid, parent, group, session, terminal, state, cpu_ticks, start_ticks })
    }

    /// False for a zombie: dead, and not reaped yet.
    pub fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// Whether the process with this pid and this start time is alive.
pub fn lives(pid: u32, start_ticks: u64) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.start_ticks == start_ticks && stat.lives())
}

/// Every process of the sandbox.
pub fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(Stat::of).collect()
}

/// The living processes that descend from `ancestor`, without `ancestor` itself.
pub fn descendants(ancestor: u32) -> Vec<Stat> {
    match children(ancestor) {
        Some(first) => {
            let mut found: Vec<Stat> = Vec::new();
            let mut queue = first;
            while let Some(pid) = queue.pop() {
                queue.extend(children(pid).unwrap_or_default());
                found.extend(Stat::of(pid).filter(Stat::lives));
            }
            found
        }
        None => {
            let mut all = all();
            all.retain(Stat::lives);
            below(&all, |stat| stat.parent == ancestor)
        }
    }
}

/// The processes in `all` that satisfy `first`, and all their descendants.
pub fn below(all: &[Stat], first: impl Fn(&Stat) -> bool) -> Vec<Stat> {
    let mut found: Vec<Stat> = Vec::new();
    loop {
        let before = found.len();
        for stat in all {
            let member = first(stat) || found.iter().any(|other| other.pid == stat.parent);
            if member && !found.iter().any(|other| other.pid == stat.pid) {
                found.push(*stat);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The children of all threads of a process; none where the kernel does not list children.
fn children(pid: u32) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Some(found) };
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            // The thread may have exited. If it still exists, this kernel has no such file for any process.
            Err(_) if thread.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

/// Whether the process had this variable in its environment when it was executed.
pub fn carries(pid: u32, variable: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes()))
}

/// Sends a signal to all these processes. SIGTERM is followed by SIGCONT: a stopped process could not handle SIGTERM and would be killed
/// without a chance to clean up.
pub fn send_to_all(processes: &[Stat], signal: Signal) {
    let after = (signal == Signal::TERM).then_some(Signal::CONT);
    for signal in [Some(signal), after].into_iter().flatten() {
        for process in processes {
            send(process.pid, signal);
        }
    }
}

/// Sends a signal. Ignores a process that has already exited.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_its_parent_and_start() {
        let pid = std::process::id();
        let stat = Stat::of(pid).expect("this process");
        assert_eq!(stat.parent, rustix::process::getppid().expect("a parent").as_raw_nonzero().get().unsigned_abs());
        assert!(stat.start_ticks > 0 && stat.lives());
        assert!(lives(pid, stat.start_ticks) && !lives(pid, stat.start_ticks + 1));
    }

    #[test]
    fn process_names_with_parentheses_are_parsed() {
        let text = b"7 (a) R 1 1 (x) S 3 4 5 34816 6 7 8 9 10 11 12 13 14 15 16 17 18 19 777 22";
        let stat = Stat::parse(7, text).expect("a process");
        assert_eq!((stat.state, stat.parent, stat.group, stat.session, stat.terminal), (b'S', 3, 4, 5, 34816));
        assert_eq!((stat.cpu_ticks, stat.start_ticks), (12 + 13 + 14 + 15, 777));
    }

    #[test]
    fn descendants_are_found_at_every_depth() {
        let mut child = std::process::Command::new("sh").args(["-c", "sh -c 'sleep 60; :' ; :"]).spawn().expect("sh");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while descendants(child.id()).len() < 2 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let found = descendants(child.id());
        assert_eq!(found.len(), 2, "{found:?}");
        let everything = all();
        assert_eq!(below(&everything, |stat| stat.parent == child.id()).len(), 2);
        for stat in found {
            send(stat.pid, Signal::KILL);
        }
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
}
