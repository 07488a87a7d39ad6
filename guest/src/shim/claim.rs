//! Turns a launch request into a supervised task, or into the reason why it failed.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::Path,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{
    Place,
    command::{Command, Failure, Streams},
    input::Input,
    link::Link,
    log::Log,
    look::{Look, Source},
    memory::MemoryKills,
    reuse::Budget,
    spare,
    task::{Capture, EndRecord, Output, Running, Task, finish},
};
use crate::{
    own_file,
    process::Stat,
    task_dir::{TaskDir, process_line},
};
use errand_proto::bridge::{Claimed, Ended, LaunchRequest, Over, Process, Stream, TerminalSize, shim_report::Kind};
use errand_task::sentinel;

/// Every descriptor that a command is started with, and the shim's ends of them.
struct Channels {
    streams: Streams,
    outputs: Vec<Output>,
    input: Option<Input>,
    source: Source,
}

/// Claims the task, starts its command and reports the result. None when there is no task to supervise.
pub(super) fn launch(link: &mut Link, request: &LaunchRequest, budget: Budget, place: &Place<'_>) -> Option<Task> {
    let Some(directory) = TaskDir::new(place.root, &request.task_id) else {
        link.say(Kind::Ended(failed(&Failure::new("refused", Errno::INVAL, "not a task's id", ""))));
        return None;
    };
    if let Err(error) = claim(place.root, &directory) {
        match error.kind() {
            io::ErrorKind::AlreadyExists => link.say(Kind::Claimed(Claimed {})),
            _ => link.say(Kind::Ended(failed(&unwritable(&error)))),
        }
        return None;
    }
    match prepare(&directory, request, place) {
        Ok(prepared) => start(link, &directory, request, budget, prepared),
        Err(failure) => {
            // No exit file could be created: the report is the only record.
            record(&directory, &request.nonce, &failure);
            link.say_end(failed(&failure), Over::default(), false);
            None
        }
    }
}

/// Reports that the kernel cannot make a process for a task.
pub(super) fn refuse(link: &mut Link, errno: Errno) {
    let failure = Failure::new("fork_refused", errno, "no process could be made", "");
    link.say_end(failed(&failure), Over::default(), false);
}

struct Prepared {
    exit: File,
    processes: File,
    log: Log,
    channels: Channels,
    command: Command,
    memory: MemoryKills,
}

/// Creating the directory claims the one launch of the task: a shim that finds the directory launches nothing.
fn claim(root: &Path, directory: &TaskDir) -> io::Result<()> {
    if spare::become_that_of(root, directory)? {
        return Ok(());
    }
    let make = || DirBuilder::new().mode(0o700).create(directory.path());
    match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o711).recursive(true).create(root)?;
            make()
        }
        made => made,
    }
}

fn prepare(directory: &TaskDir, request: &LaunchRequest, place: &Place<'_>) -> Result<Prepared, Failure> {
    let write = |error: io::Error| unwritable(&error);
    // The file gets its disk space now, so that the result can be written even if the disk is full later.
    let mut exit = own_file::create(&directory.file("exit.part")).map_err(write)?;
    exit.write_all(sentinel::head(&request.nonce).as_bytes()).map_err(write)?;
    let log = own_file::create(&directory.file("output.log")).map_err(write)?;
    let streams =
        if request.separate_stderr { Some(own_file::create(&directory.file("streams")).map_err(write)?) } else { None };
    let log = Log::new(directory, log, streams, request.output_limit);
    let channels = wire(request).map_err(|errno| Failure::new("refused", errno, "the streams cannot be made", ""))?;
    let command = Command::prepare(directory, request, place.umask)?;
    // From here on the command counts as launched.
    let mut processes = own_file::create(&directory.file("processes")).map_err(write)?;
    processes.write_all(process_line(place.shim).as_bytes()).map_err(write)?;
    // Checked after the line is written: a fence reads the line after it has made its mark. So at least one of the two sees the other.
    if directory.is_fenced() {
        let message = "the launch was given up before the command ran".to_owned();
        return Err(Failure { word: "launch_interrupted", errno: 0, message });
    }
    Ok(Prepared { exit, processes, log, channels, command, memory: place.memory.clone() })
}

fn start(
    link: &mut Link,
    directory: &TaskDir,
    request: &LaunchRequest,
    budget: Budget,
    prepared: Prepared,
) -> Option<Task> {
    let Prepared { exit, mut processes, log, channels, command, memory } = prepared;
    let Channels { streams, outputs, input, source } = channels;
    let killed_before = memory.count();
    let process = match command.start(streams) {
        Ok(pid) => identity(pid),
        Err(failure) => {
            finish(directory, exit, &failure.result());
            link.say_end(failed(&failure), Over::default(), false);
            return None;
        }
    };
    // A disk that is full by now must not keep the command from running.
    let processes = processes.write_all(process_line(process).as_bytes()).is_ok().then_some(processes);
    let made = Instant::now();
    link.pending.start = Some((process, made));
    link.pending.follows = Some(0);
    let milliseconds = |value: u64| Duration::from_millis(value);
    let record = EndRecord::new(exit, processes, memory, killed_before);
    let look = Look::new(source, milliseconds(request.quiet_after_ms), milliseconds(request.look_every_ms));
    let timeout = (request.timeout_ms > 0).then(|| milliseconds(request.timeout_ms));
    let running = Running::new(record, look, made, (timeout, milliseconds(request.grace_ms)), budget);
    Some(Task::new(directory.clone(), (process, made), Capture::new(log, outputs), input, running))
}

/// Makes the command's standard streams and the shim's ends of them.
fn wire(request: &LaunchRequest) -> Result<Channels, Errno> {
    if let Some(size) = request.terminal {
        return wire_terminal(size);
    }
    let (stdin, input) = if request.stdin {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        (reader, Some(writer))
    } else {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        (rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?, None)
    };
    let source = input.as_ref().map_or(Source::Nothing, Source::pipe);
    let (stdout_reader, stdout) = output_pipe()?;
    let mut outputs = Vec::new();
    let stderr = if request.separate_stderr {
        let (stderr_reader, stderr) = output_pipe()?;
        outputs.push(Output::new(stdout_reader, Stream::Stdout, true));
        outputs.push(Output::new(stderr_reader, Stream::Stderr, true));
        stderr
    } else {
        outputs.push(Output::new(stdout_reader, Stream::Unspecified, true));
        rustix::io::fcntl_dupfd_cloexec(&stdout, 3)?
    };
    let streams = Streams { stdin, stdout, stderr, terminal: false };
    Ok(Channels { streams, outputs, input: input.map(|writer| Input::new(writer, false)), source })
}

/// A pipe whose reading end is non-blocking.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}

fn wire_terminal(size: TerminalSize) -> Result<Channels, Errno> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    resize(&master, size)?;
    let terminal = ioctl_tiocgptpeer(&master, flags)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    let copy = || rustix::io::fcntl_dupfd_cloexec(&terminal, 3);
    let source = Source::terminal(&terminal);
    let streams = Streams { stdout: copy()?, stderr: copy()?, stdin: terminal, terminal: true };
    let writer = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
    let outputs = vec![Output::new(master, Stream::Unspecified, false)];
    Ok(Channels { streams, outputs, input: Some(Input::new(writer, true)), source })
}

/// Sets the size of a terminal.
pub(super) fn resize(master: impl std::os::fd::AsFd, size: TerminalSize) -> Result<(), Errno> {
    let number = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let size = rustix::termios::Winsize {
        ws_row: number(size.rows),
        ws_col: number(size.columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size)
}

/// A process identified by its pid and start time.
pub(super) fn identity(pid: u32) -> Process {
    Process { pid, start_ticks: Stat::of(pid).map_or(0, |stat| stat.start_ticks) }
}

/// Records as much as possible of a launch that failed.
fn record(directory: &TaskDir, nonce: &str, failure: &Failure) {
    let part = directory.file("exit.part");
    if own_file::write(&part, &format!("{}{}\n", sentinel::head(nonce), failure.result())).is_ok() {
        let _ = fs::rename(part, directory.file("exit"));
    }
}

fn unwritable(error: &io::Error) -> Failure {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    let word = match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::ROFS => "no_space",
        _ => "not_permitted",
    };
    Failure::new(word, errno, "the task directory cannot be written", &error.to_string())
}

impl Failure {
    /// The failure in the format of the exit file.
    fn result(&self) -> String {
        format!("failed {} {} {}", self.word, self.errno, self.message.replace('\n', " "))
    }
}

fn failed(failure: &Failure) -> Ended {
    Ended { result: failure.result(), usage: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use errand_proto::bridge::{Argv, launch_request::Program};

    #[test]
    fn launch_and_fence_never_both_win() {
        let root = tempfile::tempdir().expect("a directory");
        let shim = Process { pid: 1, start_ticks: 2 };
        let place = Place { root: root.path(), umask: 0o022, shim, memory: MemoryKills::open() };
        let program = Some(Program::Argv(Argv { arguments: vec!["true".to_owned()] }));
        let request = LaunchRequest { nonce: "n".to_owned(), program, ..LaunchRequest::default() };
        for (id, fenced) in [("a", true), ("b", false)] {
            let directory = TaskDir::new(root.path(), id).expect("an id");
            claim(root.path(), &directory).expect("claimed");
            if fenced {
                assert!(!directory.fence().expect("fenced").are_started());
            }
            let word = prepare(&directory, &request, &place).err().map(|failure| failure.word);
            assert_eq!(word, fenced.then_some("launch_interrupted"));
            assert_eq!(directory.fence().expect("fenced").shim, Some(shim));
        }
    }
}
