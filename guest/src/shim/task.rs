//! A running command as its shim supervises it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{net::UnixListener, process::ExitStatusExt as _},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    children::{Children, Waited},
    claim::{finish, resize},
    input::Input,
    link::Link,
    log::{Log, MUCH, Taken},
    look::Look,
    memory::MemoryKills,
    spare,
};
use crate::{
    process,
    task_dir::{ALONE, TaskDir, usage_line},
};
use errand_proto::bridge::{
    Ended, Grew, InputRefusal, InputTaken, Over, Process, Resized, ShimOrder, Stream, WriteInputRequest,
    shim_order::Kind as Order, shim_report::Kind,
};

/// The most reads from one stream before the other streams get their turn.
const TURNS: usize = 4;
/// The largest size of a pipe unless root has raised the limit: a pipe holds no more than this when the command ends.
const PIPE_LIMIT: u64 = 1024 * 1024;
/// The size in bytes of the pipe of a command that writes much.
const LARGE_PIPE: usize = 512 * 1024;
/// The interval between kills of what is left of a timed-out command.
const KILL_AGAIN: Duration = Duration::from_millis(100);

/// A command that ends before this needs no socket for its shim, and its memory is not trimmed. A bridge process that connects earlier
/// tries again.
const LISTEN_AFTER: Duration = Duration::from_millis(50);

/// A stream that the command writes to.
pub(super) struct Output {
    source: Option<OwnedFd>,
    stream: Stream,
    is_pipe: bool,
    large: bool,
}

impl Output {
    pub(super) fn new(source: OwnedFd, stream: Stream, is_pipe: bool) -> Self {
        Self { source: Some(source), stream, is_pipe, large: false }
    }
}

/// What a task is made of.
pub(super) struct Parts {
    pub(super) directory: TaskDir,
    pub(super) exit: File,
    /// None when a line could not be written: a later line would be read in its place.
    pub(super) processes: Option<File>,
    pub(super) log: Log,
    pub(super) process: Process,
    pub(super) made: Instant,
    pub(super) outputs: Vec<Output>,
    pub(super) input: Option<Input>,
    /// The counter of processes killed for lack of memory, and its value before the command.
    pub(super) memory: (MemoryKills, Option<u64>),
    pub(super) look: Look,
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
    /// Whether this process takes no further task.
    pub(super) last: bool,
}

/// The state of a command that has timed out.
struct Stopping {
    after: Duration,
    /// The next signal, and when to send it.
    next: (Signal, Instant),
}

/// One task.
pub(super) struct Task {
    directory: TaskDir,
    /// The unfinished sentinel, until it is complete.
    exit: Option<File>,
    processes: Option<File>,
    log: Log,
    process: Process,
    /// When the command was started.
    made: Instant,
    outputs: Vec<Output>,
    input: Option<Input>,
    listener: Option<UnixListener>,
    /// When to open the socket.
    listen_at: Option<Instant>,
    memory: (MemoryKills, Option<u64>),
    look: Look,
    /// When the timeout expires, and how long it was.
    deadline: Option<(Instant, Duration)>,
    grace: Duration,
    stopping: Option<Stopping>,
    /// How the first process ended, once it has.
    status: Option<String>,
    /// What bridge processes are told of the end, once it is recorded.
    end: Option<(Ended, Over)>,
    children: Children,
    /// True once no process of the task is left (drained).
    childless: bool,
    last: bool,
    /// True when the end is recorded and no process was left at that time: no one searches for the task's processes below this shim any
    /// more.
    free: bool,
}

impl Task {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            directory,
            exit,
            processes,
            log,
            process,
            made,
            outputs,
            input,
            memory,
            look,
            timeout,
            grace,
            last,
        } = parts;
        // A caller that writes input connects at once.
        let listen_after = if input.is_some() { Duration::ZERO } else { LISTEN_AFTER };
        Self {
            directory,
            exit: Some(exit),
            processes,
            log,
            process,
            made,
            outputs,
            input,
            listener: None,
            listen_at: Some(made + listen_after),
            memory,
            look,
            deadline: timeout.map(|timeout| (made + timeout, timeout)),
            grace,
            stopping: None,
            status: None,
            end: None,
            children: Children::default(),
            childless: false,
            last,
            free: false,
        }
    }

    /// True when the end is recorded and no process of the task is left.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() && self.childless
    }

    /// True when this process may take another task.
    pub(super) fn is_free(&self) -> bool {
        self.free
    }

    /// Leaves only what later readers need.
    pub(super) fn leave(&mut self) {
        // A daemon may have written more after the command's end.
        self.log.settle();
        if self.listener.is_some() {
            let _ = fs::remove_file(self.directory.file("control"));
        }
    }

    /// When the next timer expires.
    pub(super) fn due(&self) -> Option<Instant> {
        if let Some(stopping) = &self.stopping {
            return self.end.is_none().then_some(stopping.next.1);
        }
        if self.status.is_some() {
            return None;
        }
        let deadline = self.deadline.map(|(deadline, _)| deadline);
        [deadline, self.listen_at, Some(self.look.due())].into_iter().flatten().min()
    }

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(|listener| listener.as_fd())
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.outputs.iter().enumerate().filter_map(|(index, output)| Some((index, output.source.as_ref()?.as_fd())))
    }

    pub(super) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref()?.target()
    }

    /// Opens the socket at which later bridge processes find this shim.
    fn listen(&self) -> io::Result<UnixListener> {
        let listener = crate::socket::bind(self.directory.path(), "control")?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Accepts a connection and reports the task's current state on it.
    pub(super) fn accept(&self) -> Option<Link> {
        let (socket, _) = self.listener.as_ref()?.accept().ok()?;
        let mut link = Link::new(socket.into()).ok()?;
        link.start = Some((self.process, self.made));
        link.tell_start();
        if let Some(activity) = self.look.last() {
            link.say(Kind::Activity(activity));
        }
        if let Some((ended, over)) = &self.end {
            link.say_end(ended.clone(), *over, false);
        }
        Some(link)
    }

    /// Executes an order of a bridge process.
    pub(super) fn obey(&mut self, link: &mut Link, order: ShimOrder) {
        match order.kind {
            Some(Order::Follow(follow)) => {
                link.follows = Some(follow.known);
                self.tell_growth(link);
            }
            Some(Order::Input(request)) => self.take_input(link, request),
            Some(Order::Resize(size)) => {
                let terminal =
                    self.outputs.iter().find(|output| !output.is_pipe).and_then(|output| output.source.as_ref());
                let refusal = match terminal {
                    Some(master) if resize(master, size).is_ok() => InputRefusal::Unspecified,
                    Some(_) => InputRefusal::Closed,
                    None if self.outputs.iter().all(|output| output.is_pipe) => InputRefusal::NotOpen,
                    None => InputRefusal::Closed,
                };
                link.say(Kind::Resized(Resized { refusal: refusal.into() }));
            }
            // A shim has one task at a time, and the meaning of a newer order is unknown.
            Some(Order::Launch(_)) | None => {}
        }
    }

    fn take_input(&mut self, link: &mut Link, request: WriteInputRequest) {
        self.look.sign_of_life();
        let Some(input) = &mut self.input else {
            let taken = InputTaken { refusal: InputRefusal::NotOpen.into(), ..InputTaken::default() };
            link.say(Kind::InputTaken(taken));
            return;
        };
        // A second order on the same connection: the sender no longer waits for the first.
        if link.input.take().is_some() {
            link.say(Kind::InputTaken(input.answer(InputRefusal::Unspecified)));
            return;
        }
        let mut request = request;
        match input.write(&mut request) {
            Some(taken) => link.say(Kind::InputTaken(taken)),
            None => link.input = Some(request),
        }
    }

    /// Continues with inputs that had no room.
    pub(super) fn feed(&mut self, links: &mut [Link]) {
        let Some(input) = &mut self.input else { return };
        for link in links {
            if let Some(mut request) = link.input.take() {
                match input.write(&mut request) {
                    Some(taken) => link.say(Kind::InputTaken(taken)),
                    None => link.input = Some(request),
                }
            }
        }
    }

    /// Logs what the command has written to the streams that are ready.
    pub(super) fn take_output(&mut self, links: &mut [Link], ready: &[usize]) {
        let before = self.log.size();
        for index in ready {
            for _ in 0..TURNS {
                if self.take_from(*index) == 0 {
                    break;
                }
            }
        }
        if self.log.size() > before {
            self.look.sign_of_life();
            for link in links {
                self.tell_growth(link);
            }
        }
    }

    /// Reads from one stream once. Returns how many bytes were read, logged or not; none when nothing more is available for now.
    fn take_from(&mut self, index: usize) -> u64 {
        let Some(output) = self.outputs.get_mut(index) else { return 0 };
        let Some(source) = &output.source else { return 0 };
        match self.log.take(source, output.stream, output.is_pipe) {
            Taken::Bytes(taken) => {
                if output.is_pipe && !output.large && self.log.size() > MUCH {
                    output.large = true;
                    let _ = rustix::pipe::fcntl_setpipe_size(source, LARGE_PIPE);
                }
                taken as u64
            }
            Taken::Nothing => 0,
            Taken::End => {
                output.source = None;
                0
            }
        }
    }

    fn tell_growth(&self, link: &mut Link) {
        if link.follows.is_some_and(|known| known < self.log.size()) {
            link.follows = None;
            link.say(Kind::Grew(Grew { bytes: self.log.size() }));
        }
    }

    /// Reaps the processes that have ended.
    pub(super) fn reap(&mut self, links: &mut [Link]) {
        loop {
            match self.children.reap() {
                Waited::Ended(pid, status) => {
                    if u32::try_from(pid) == Ok(self.process.pid) {
                        self.status = Some(match (status.code(), status.signal()) {
                            (Some(code), _) => format!("exited {code}"),
                            (None, Some(signal)) => format!("signaled {signal}"),
                            (None, None) => continue,
                        });
                    }
                }
                Waited::None => break,
                Waited::Childless => {
                    self.childless = true;
                    break;
                }
            }
        }
        self.check_end(links);
    }

    /// Records the end once the command has ended, and reports it.
    fn check_end(&mut self, links: &mut [Link]) {
        let Some(status) = &self.status else { return };
        // A command that has timed out ends when no process of it is left.
        if self.end.is_some() || self.stopping.is_some() && !self.childless {
            return;
        }
        let result = match &self.stopping {
            Some(stopping) => format!("timed_out {}", stopping.after.as_millis()),
            None => status.clone(),
        };
        self.take_what_is_left(links);
        self.log.settle();
        if let Some(input) = &mut self.input {
            input.close();
        }
        let mut usage = self.children.used();
        // A successful command was not killed for lack of memory: skipping the count saves a read.
        if result != "exited 0" {
            usage.oom_kills = self.memory.0.since(self.memory.1);
        }
        let used = self.note(&usage_line(&usage));
        let finished = self.exit.take().is_some_and(|exit| finish(&self.directory, exit, &result));
        let alone = used && finished && self.childless && self.note(&format!("{ALONE}\n"));
        self.free = alone && !self.last;
        let ended = Ended { result, usage: Some(usage) };
        let over = Over { bytes: self.log.size(), incomplete: self.log.incomplete(), gap: self.log.gap() };
        for link in links {
            link.say_end(ended.clone(), over, self.free);
        }
        self.end = Some((ended, over));
    }

    /// Writes a line about the task's processes. Returns false when this line or an earlier one could not be written.
    fn note(&mut self, line: &str) -> bool {
        let written = self.processes.as_mut().is_some_and(|file| file.write_all(line.as_bytes()).is_ok());
        if !written {
            self.processes = None;
        }
        written
    }

    /// Logs what the command wrote before it ended. A daemon may write for ever, so reads at most what the pipe could hold.
    fn take_what_is_left(&mut self, links: &mut [Link]) {
        for index in 0..self.outputs.len() {
            let mut taken = 0;
            while taken < PIPE_LIMIT {
                match self.take_from(index) {
                    0 => break,
                    more => taken += more,
                }
            }
        }
        for link in links {
            self.tell_growth(link);
        }
    }

    /// Handles the timers that have expired: the timeout and its kills, and the check of a silent command.
    pub(super) fn on_time(&mut self, links: &mut [Link]) {
        let now = Instant::now();
        for link in links.iter_mut().filter(|link| link.start_due().is_some_and(|due| due <= now)) {
            link.tell_start();
        }
        if self.listen_at.is_some_and(|at| at <= now) {
            self.listen_at = None;
            trim();
            // Without a socket, bridge processes cannot reach this task, but it goes on: the files still record how it ends.
            self.listener = self.listen().ok();
            spare::make(self.directory.root());
        }
        if self.stopping.is_none()
            && self.status.is_none()
            && let Some((deadline, after)) = self.deadline
            && deadline <= now
        {
            let first = if self.grace.is_zero() { Signal::KILL } else { Signal::TERM };
            self.stopping = Some(Stopping { after, next: (first, now) });
        }
        if let Some(stopping) = &mut self.stopping {
            if self.end.is_none() && stopping.next.1 <= now {
                let signal = stopping.next.0;
                let wait = if signal == Signal::KILL { KILL_AGAIN } else { self.grace };
                stopping.next = (Signal::KILL, now + wait);
                process::send_to_all(&process::descendants(std::process::id()), signal);
            }
        } else if self.status.is_none()
            && let Some(activity) = self.look.look(std::process::id())
        {
            for link in links {
                link.say(Kind::Activity(activity.clone()));
            }
        }
    }
}

/// Gives back memory that only the launch needed.
fn trim() {
    // SAFETY: takes and returns nothing.
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::look::Source;

    #[test]
    fn whoever_writes_on_for_ever_where_nothing_can_be_kept_does_not_hold_up_the_end() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = TaskDir::new(root.path(), "t").expect("an id");
        fs::create_dir(directory.path()).expect("made");
        let made = |name| File::create(directory.file(name)).expect("made");
        let exit = made("exit.part");
        drop(made("output.log"));
        // A read-only file: every write fails, as on a full disk.
        let log = File::open(directory.file("output.log")).expect("open");
        let mut task = Task::new(Parts {
            log: Log::new(&directory, log, None, 0),
            directory,
            exit,
            processes: None,
            process: Process::default(),
            made: Instant::now(),
            outputs: vec![Output::new(File::open("/dev/zero").expect("open").into(), Stream::Unspecified, false)],
            input: None,
            memory: (MemoryKills::open(), None),
            look: Look::new(Source::Nothing, Duration::ZERO, Duration::ZERO),
            timeout: None,
            grace: Duration::ZERO,
            last: true,
        });
        let (over, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            task.take_what_is_left(&mut []);
            over.send(task.log.incomplete())
        });
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(true));
    }
}
