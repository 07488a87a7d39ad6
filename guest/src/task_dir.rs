//! The task directory: its files and their meaning. The direct bridge keeps the same files.
//!
//! | file | what |
//! |---|---|
//! | `output.log` | output as it came. A position in it is a position in the whole output; what the limit dropped is a hole |
//! | `gap` | two numbers: the first missing byte, and the first byte after the gap. Written before the hole is made. The direct bridge makes no hole: there the second number is the size of the whole output |
//! | `output.tail` | direct bridge: the last bytes of the output that were kept, stored beside the log |
//! | `oom` | direct bridge: how many processes of the sandbox the kernel killed for lack of memory while the command ran |
//! | `streams` | the positions where the stream changes, see [`crate::streams`] |
//! | `exit` | the sentinel; named `exit.part` until it is complete |
//! | `processes` | one line for the shim, which marks the command as launched; one for the first process (each with pid and kernel start time); then the resources the command used, written before the sentinel; then, after the sentinel, `alone` if no process of the task was left: the shim may supervise another task by then |
//! | `fenced` | made by a caller that found no launch and must rule out a later one: a shim checks for the file after it has written its line, and gives up if it exists |
//! | `incomplete` | exists when some output could not be written |
//! | `control` | the shim's socket |
//!
//! The root also holds `.spare`: a directory prepared for the next task.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{own_file, process};
use errand_proto::bridge::{Gap, Process, Usage};

/// The most bytes of an exit file that are read.
const EXIT_LIMIT: u64 = 1024;
/// The most bytes of any other file that are read: no file that the guest writes is longer.
const TEXT_LIMIT: u64 = 1024;

/// The directory of one task.
#[derive(Debug, Clone)]
pub struct TaskDir {
    path: PathBuf,
}

impl TaskDir {
    /// The directory of the task with this id; none if the id is not valid, for example because it could lead to another directory.
    pub fn new(root: &Path, task_id: &str) -> Option<Self> {
        let plain = !task_id.is_empty()
            && task_id.len() <= 64
            && task_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        plain.then(|| Self { path: root.join(task_id) })
    }

    /// The path of the task directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that holds all task directories.
    pub fn root(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What the task directory records about the task's processes.
    pub fn processes(&self) -> Processes {
        Processes::parse(&self.text("processes").unwrap_or_default())
    }

    /// True while the process that writes the exit file lives.
    ///
    /// A daemon may hold the log open and so keep the direct bridge's supervisor alive. The supervisor has nothing more to report once the
    /// result exists and the command has ended, so it no longer counts then.
    pub fn supervised(&self) -> bool {
        self.is_supervised(&self.processes())
    }

    /// Like [`Self::supervised`], for processes that the caller read a moment ago.
    pub fn is_supervised(&self, processes: &Processes) -> bool {
        let has_told = || self.of_direct_bridge() && self.file("exit").exists() && !processes.is_running();
        processes.are_supervised() && !has_told()
    }

    /// True when the direct bridge supervises the task: only the direct bridge makes a table of jobs.
    pub fn of_direct_bridge(&self) -> bool {
        self.file("jobs").exists()
    }

    /// The range of bytes that the log did not keep.
    pub fn gap(&self) -> Option<Gap> {
        let [start, end] = two_numbers(self.text("gap")?.lines().next()?)?;
        // The kernel uses signed positions: a number that cannot be a position was not written by the guest.
        (start <= end && i64::try_from(end).is_ok()).then_some(Gap { start, end })
    }

    /// The size of the whole output, including what the log did not keep.
    pub fn output_bytes(&self, gap: Option<&Gap>) -> u64 {
        let log = fs::symlink_metadata(self.file("output.log"));
        let size = log.ok().filter(fs::Metadata::is_file).map_or(0, |log| log.len());
        // If no hole can be made, the log ends where the gap begins.
        size.max(gap.map_or(0, |gap| gap.end))
    }

    /// The first bytes of the exit file; none when it does not exist.
    pub fn exit_file(&self) -> Option<Vec<u8>> {
        own_file::read(&self.file("exit"), EXIT_LIMIT).ok()
    }

    /// The result in the exit file, if the file is complete and belongs to this launch.
    pub fn result(&self, nonce: &str) -> Option<String> {
        let content = String::from_utf8(self.exit_file()?).ok()?;
        errand_task::sentinel::result(&content, nonce).map(str::to_owned)
    }

    /// Ensures that a task which has not launched yet never will. Returns what is recorded of its processes after the fence mark is in
    /// place: a launch that has written its line by then goes on; any later launch finds the mark and gives up.
    ///
    /// # Errors
    /// When the mark cannot be created.
    pub fn fence(&self) -> io::Result<Processes> {
        use std::os::unix::fs::DirBuilderExt as _;
        match fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.path) {
            Err(error) if !self.path.is_dir() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        own_file::mark(&self.file("fenced"))?;
        Ok(self.processes())
    }

    /// True when the task was fenced: a caller found that it had not launched and ruled out a later launch.
    pub fn is_fenced(&self) -> bool {
        own_file::exists(&self.file("fenced"))
    }

    /// True when some output could not be written.
    pub fn is_incomplete(&self) -> bool {
        own_file::exists(&self.file("incomplete"))
    }

    fn text(&self, name: &str) -> Option<String> {
        String::from_utf8(own_file::read(&self.file(name), TEXT_LIMIT).ok()?).ok()
    }
}

fn two_numbers(line: &str) -> Option<[u64; 2]> {
    let mut numbers = line.split(' ').map_while(|word| word.parse().ok());
    Some([numbers.next()?, numbers.next()?])
}

/// What is recorded of a task's processes. A missing or incomplete line is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Processes {
    /// The process that supervises or supervised the task.
    pub shim: Option<Process>,
    /// The command's first process.
    pub first: Option<Process>,
    /// The resources the command used, once it has ended.
    pub usage: Option<Usage>,
    /// True when the result is recorded and no process of the task was left (drained). Its shim may supervise another task by now.
    pub alone: bool,
}

impl Processes {
    fn parse(text: &str) -> Self {
        let mut lines = text.split_inclusive('\n').map_while(|line| line.strip_suffix('\n'));
        let mut process = || {
            let [pid, start_ticks] = two_numbers(lines.next()?)?;
            Some(Process { pid: u32::try_from(pid).ok()?, start_ticks })
        };
        let (shim, first) = (process(), process());
        let usage = lines.next().and_then(parse_usage);
        Self { shim, first, usage, alone: lines.next() == Some(ALONE) }
    }

    /// True when the command was launched; false when only its directory exists.
    pub fn are_started(&self) -> bool {
        self.shim.is_some()
    }

    /// True while the command's first process lives.
    pub fn is_running(&self) -> bool {
        self.first.is_some_and(|first| process::lives(first.pid, first.start_ticks))
    }

    /// True while the process that writes the exit file lives and has not finished with the task.
    pub fn are_supervised(&self) -> bool {
        !self.alone && self.shim.is_some_and(|shim| process::lives(shim.pid, shim.start_ticks))
    }
}

/// The line that records a process.
pub fn process_line(process: Process) -> String {
    format!("{} {}\n", process.pid, process.start_ticks)
}

/// The line that records resource usage: 6 numbers, in the order of the message's fields.
pub fn usage_line(usage: &Usage) -> String {
    let Usage { user_cpu_us, system_cpu_us, peak_memory_bytes, read_bytes, written_bytes, oom_kills } = usage;
    format!("{user_cpu_us} {system_cpu_us} {peak_memory_bytes} {read_bytes} {written_bytes} {oom_kills}\n")
}

/// The line that says that no process of the task is left.
pub const ALONE: &str = "alone";

fn parse_usage(line: &str) -> Option<Usage> {
    let mut words = line.split(' ');
    let mut number = || words.next()?.parse().ok();
    Some(Usage {
        user_cpu_us: number()?,
        system_cpu_us: number()?,
        peak_memory_bytes: number()?,
        read_bytes: number()?,
        written_bytes: number()?,
        // Older shims do not write this number.
        oom_kills: number().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_directory_refuses_unsafe_ids() {
        let root = Path::new("/tmp/errand");
        assert!(TaskDir::new(root, "0192f0c1-aaaa-7bbb-8ccc-123456789abc").is_some());
        for id in ["", "..", ".", "a/b", "/etc", "a\0b", "a b", &"x".repeat(65)] {
            assert!(TaskDir::new(root, id).is_none(), "{id:?}");
        }
    }

    #[test]
    fn fence_stops_only_later_launches() {
        let root = tempfile::tempdir().expect("a directory");
        let fresh = TaskDir::new(root.path(), "a").expect("an id");
        fresh.fence().expect("fenced");
        let found = fresh.fence().expect("fenced twice");
        assert!(fresh.is_fenced() && !found.are_started());
        let launched = TaskDir::new(root.path(), "b").expect("an id");
        fs::create_dir(launched.path()).expect("made");
        fs::write(launched.file("processes"), process_line(Process { pid: 1, start_ticks: 2 })).expect("written");
        assert!(launched.fence().expect("fenced").are_started());
    }

    #[test]
    fn processes_are_read_up_to_an_incomplete_line() {
        let process = |pid| Process { pid, start_ticks: u64::MAX };
        let usage = Usage {
            user_cpu_us: 1,
            system_cpu_us: 2,
            peak_memory_bytes: 3,
            read_bytes: 4,
            written_bytes: u64::MAX,
            oom_kills: 6,
        };
        let lines = [process_line(process(7)), process_line(process(8)), usage_line(&usage), format!("{ALONE}\n")];
        let text = lines.concat();
        for cut in 0..=text.len() {
            let whole = |count: usize| cut >= lines[..count].concat().len();
            let expected = Processes {
                shim: whole(1).then(|| process(7)),
                first: whole(2).then(|| process(8)),
                usage: whole(3).then_some(usage),
                alone: whole(4),
            };
            assert_eq!(Processes::parse(&text[..cut]), expected, "{cut}");
        }
        let old = Processes::parse("7 1\n8 1\n1 2 3 4 5\n");
        assert_eq!(old.usage.map(|usage| (usage.written_bytes, usage.oom_kills)), Some((5, 0)));
        let second = Some(Process { pid: 1, start_ticks: 2 });
        assert_eq!(Processes::parse("nonsense\n1 2 3 4\n"), Processes { first: second, ..Processes::default() });
    }

    #[test]
    fn only_complete_results_of_this_launch_count() {
        let root = tempfile::tempdir().expect("a directory");
        let task = TaskDir::new(root.path(), "a").expect("an id");
        fs::create_dir(task.path()).expect("made");
        for (content, result) in [
            ("errand 1 n exited 0\n", Some("exited 0")),
            ("errand 1 n exited 0", None),
            ("errand 1 other exited 0\n", None),
            ("errand 2 n exited 0\n", None),
            ("", None),
        ] {
            fs::write(task.file("exit"), content).expect("written");
            assert_eq!(task.result("n").as_deref(), result, "{content:?}");
        }
    }
}
