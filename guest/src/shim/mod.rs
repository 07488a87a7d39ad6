//! The shim: the process that supervises one task at a time, with its command, log and exit file. It outlives the bridge process that
//! requested it.
//!
//! One thread, one loop, no async runtime: a thousand shims must cost little. Bridge processes connect to its socket at any time; their
//! reports contain nothing that the task directory will not also record.

mod awaits;
mod children;
mod claim;
mod command;
mod input;
mod line;
mod link;
mod log;
mod look;
mod memory;
pub(crate) mod spare;
mod task;
mod user;

use std::{
    os::fd::{AsFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use prost::Message as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use errand_proto::bridge::{LaunchRequest, Process, shim_order::Kind as Order};
use link::Link;
use task::Task;

/// The most tasks of one shim. Each command's process shares the shim's memory until it executes its program, and leaves some of its memory
/// behind.
const TASKS: usize = 100;
/// After a launch request of this many bytes a shim takes no other task: every program executed from it inherits the high-water mark of its
/// memory.
const LARGE: usize = 64 * 1024;

/// The most free memory, in bytes, that a shim keeps between tasks: more than a launch needs.
const MEMORY: libc::c_int = 1024 * 1024;

/// How long no request must arrive before a process or a directory is prepared for the next task: the preparation must not slow down a
/// command that was just launched.
pub(crate) const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What all tasks of one shim have in common.
struct Place<'a> {
    /// The directory that holds the task directories.
    root: &'a Path,
    /// The umask of the commands.
    umask: u32,
    /// This process.
    shim: Process,
    /// The count of processes killed for lack of memory.
    memory: memory::MemoryKills,
}

/// Supervises the task that is requested on `control`, below `root`, and then the next task requested there: making a process costs more
/// than most commands. Returns when no more requests can come, or when processes of a task are left after its end.
pub(crate) fn run(control: OwnedFd, root: &Path, umask: u32) {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"errand-shim");
    // Every process that the command leaves behind becomes this process's child, wherever it moves.
    let _ = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
    keep_memory();
    let Some(signals) = listen_for_children() else { return };
    let memory = memory::MemoryKills::open();
    let place = Place { root, umask, shim: claim::identity(std::process::id()), memory };
    let Ok(mut link) = Link::first(control) else { return };
    for number in 1..=TASKS {
        let Some(request) = next_launch(&mut link, root) else { return };
        let last = number == TASKS || request.encoded_len() > LARGE;
        let Some(free) = keep(link, request, last, &place, &signals) else { return };
        link = free;
    }
}

/// Reports on `control` that no process can be made for the task requested there.
pub(crate) fn refuse(control: OwnedFd, errno: Errno) {
    if let Ok(mut link) = Link::first(control) {
        claim::refuse(&mut link, errno);
    }
}

/// Supervises one task to its end. `last` makes it the last one. Returns the connection for the next task, if there may be one.
fn keep(link: Link, request: LaunchRequest, last: bool, place: &Place<'_>, signals: &OwnedFd) -> Option<Link> {
    let mut links = vec![link];
    let mut task = claim::launch(&mut links, request, last, place)?;
    while !task.is_over() {
        turn(&mut task, &mut links, signals);
    }
    task.leave();
    links.into_iter().find(|link| task.is_free() && link.launches())
}

/// Waits for the next launch request; none when no more can come.
fn next_launch(link: &mut Link, root: &Path) -> Option<LaunchRequest> {
    let mut quiet = Some(&QUIET);
    loop {
        // Any other order was meant for the previous task.
        let launch = link.orders().into_iter().find_map(|order| match order.kind {
            Some(Order::Launch(request)) => Some(request),
            _ => None,
        });
        if launch.is_some() || !link.is_open() {
            return launch;
        }
        let mut wait = [PollFd::new(&*link, PollFlags::IN)];
        match poll(&mut wait, quiet) {
            Ok(0) => {
                quiet = None;
                spare::make(root);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// One iteration of the loop: waits until something happens, and handles everything that has happened.
fn turn(task: &mut Task, links: &mut Vec<Link>, signals: &OwnedFd) {
    let due = links.iter().filter_map(Link::start_due).chain(task.due()).min();
    let timeout = due.map(|due| {
        let wait = due.saturating_duration_since(std::time::Instant::now());
        Timespec { tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() }
    });
    let ready = wait(task, links, signals, timeout.as_ref());
    if ready.signals {
        drain(signals);
    }
    for link in ready.links {
        for order in links[link].orders() {
            task.obey(&mut links[link], order);
        }
    }
    if ready.listener
        && let Some(link) = task.accept()
    {
        links.push(link);
    }
    task.take_output(links, &ready.outputs);
    if ready.signals {
        task.reap(links);
    }
    task.feed(links);
    task.on_time(links);
    links.retain(Link::is_open);
}

/// The sources that are ready.
#[derive(Default)]
struct Ready {
    signals: bool,
    listener: bool,
    outputs: Vec<usize>,
    links: Vec<usize>,
}

fn wait(task: &Task, links: &[Link], signals: &OwnedFd, timeout: Option<&Timespec>) -> Ready {
    enum What {
        Signals,
        Listener,
        Output(usize),
        Input,
        Link(usize),
    }
    let mut what = vec![What::Signals];
    let mut wait = vec![PollFd::new(signals, PollFlags::IN)];
    if let Some(listener) = task.listener() {
        what.push(What::Listener);
        wait.push(PollFd::from_borrowed_fd(listener, PollFlags::IN));
    }
    for (index, output) in task.outputs() {
        what.push(What::Output(index));
        wait.push(PollFd::from_borrowed_fd(output, PollFlags::IN));
    }
    if links.iter().any(|link| link.input.is_some())
        && let Some(input) = task.input()
    {
        what.push(What::Input);
        wait.push(PollFd::from_borrowed_fd(input, PollFlags::OUT));
    }
    for (index, link) in links.iter().enumerate() {
        what.push(What::Link(index));
        wait.push(PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN));
    }
    let mut ready = Ready::default();
    if poll(&mut wait, timeout).is_err() {
        return ready;
    }
    for (what, found) in what.into_iter().zip(wait) {
        if found.revents().is_empty() {
            continue;
        }
        match what {
            What::Signals => ready.signals = true,
            What::Listener => ready.listener = true,
            What::Output(index) => ready.outputs.push(index),
            What::Input => {}
            What::Link(index) => ready.links.push(index),
        }
    }
    ready
}

/// Keeps memory that one task has freed for the next one. A long task gives it back, see [`task`].
fn keep_memory() {
    // SAFETY: takes two numbers; there is one thread.
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, MEMORY);
    }
}

/// A descriptor that becomes readable when a child changes state. Blocks every other signal: a signal meant for the command must not kill
/// its shim.
pub(crate) fn listen_for_children() -> Option<OwnedFd> {
    // SAFETY: the sets are initialised before they are used; the descriptor is new and has no other owner.
    #[allow(unsafe_code)]
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
        let mut children = std::mem::zeroed();
        libc::sigemptyset(&mut children);
        libc::sigaddset(&mut children, libc::SIGCHLD);
        let descriptor = libc::signalfd(-1, &children, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        (descriptor >= 0).then(|| OwnedFd::from_raw_fd(descriptor))
    }
}

/// Reads and discards the arrived signals; the caller finds out elsewhere which children have ended.
pub(crate) fn drain(signals: &OwnedFd) {
    let mut buffer = [0u8; 128 * 8];
    while matches!(rustix::io::read(signals, &mut buffer), Ok(read) if read > 0) {}
}
