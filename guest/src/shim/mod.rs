//! The process that keeps one task at a time: its command, its log, its exit file. It outlives whoever asked for it.
//!
//! One thread, one loop, no runtime: a thousand of them must cost little. Bridges come and go on its socket; what they are told is only
//! what the task directory will say as well.

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

/// The most tasks of one shim. A command's process, which shares the shim's memory until it is another program, leaves something of its own
/// in it each time.
const TASKS: usize = 100;
/// After a launch of so many bytes a shim keeps no other task: the high-water mark of its memory counts for whatever is executed from it.
const LARGE: usize = 64 * 1024;

/// So much free memory is not given back to the kernel while a shim goes from task to task, in bytes: more than a launch needs.
const MEMORY: libc::c_int = 1024 * 1024;

/// How long nothing has to be asked for before something is made for the next task, a process or its directory: it must not be in the way of
/// what was just launched.
pub(crate) const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What all tasks of one shim have in common.
struct Place<'a> {
    /// Where the task directories are.
    root: &'a Path,
    /// That of the commands.
    umask: u32,
    /// This process.
    shim: Process,
    /// Kills for want of memory.
    memory: memory::MemoryKills,
}

/// Keeps the task that is asked for on `control`, below `root`, and then the next one that is asked for there: making a process costs more
/// than most commands. Returns when nobody asks any more, or when something of a task is left that is not over.
pub(crate) fn run(control: OwnedFd, root: &Path, umask: u32) {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"errand-shim");
    // Whatever the command leaves behind becomes this process's child, wherever it goes.
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

/// Says on `control` that there is no process for the task that is asked for there.
pub(crate) fn refuse(control: OwnedFd, errno: Errno) {
    if let Ok(mut link) = Link::first(control) {
        claim::refuse(&mut link, errno);
    }
}

/// Keeps one task to its end, as the last one if that is said. Returns the connection for the next, if there may be one.
fn keep(link: Link, request: LaunchRequest, last: bool, place: &Place<'_>, signals: &OwnedFd) -> Option<Link> {
    let mut links = vec![link];
    let mut task = claim::launch(&mut links, request, last, place)?;
    while !task.is_over() {
        turn(&mut task, &mut links, signals);
    }
    task.leave();
    links.into_iter().find(|link| task.is_free() && link.launches())
}

/// Waits for the next launch that is asked for; none when nobody will ask.
fn next_launch(link: &mut Link, root: &Path) -> Option<LaunchRequest> {
    let mut quiet = Some(&QUIET);
    loop {
        // Anything else was meant for the task before.
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

/// One turn of the loop: waits until something happens, and deals with all that has.
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

/// What can be gone on with.
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

/// What one task has freed is there for the next. A task that lasts gives it back, see [`task`].
fn keep_memory() {
    // SAFETY: takes two numbers; there is one thread.
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, MEMORY);
    }
}

/// A descriptor that is ready when a child has changed. Every other signal is blocked: none that was meant for the command ends its keeper.
pub(crate) fn listen_for_children() -> Option<OwnedFd> {
    // SAFETY: the sets are initialised before they are used; the descriptor is new and nobody else's.
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

/// Takes the signals that have come; what they mean is asked elsewhere.
pub(crate) fn drain(signals: &OwnedFd) {
    let mut buffer = [0u8; 128 * 8];
    while matches!(rustix::io::read(signals, &mut buffer), Ok(read) if read > 0) {}
}
