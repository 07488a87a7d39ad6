//! One iteration of a shim's loop: waits until something happens, and handles everything that has happened.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{drain, link::Link, task::Task};

/// Waits once and handles everything that is ready. Returns the task in the phase that it has reached.
pub(super) fn turn(mut task: Task, links: &mut Vec<Link>, signals: &OwnedFd) -> Task {
    let watches = links.iter().filter_map(|link| link.pending.watcher.as_ref()?.due(task.output_size()));
    let due = links.iter().filter_map(Link::start_due).chain(watches).chain(task.due()).min();
    let ready = wait(&task, links, signals, due.map(errand_os::until).as_ref());
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
        task = task.reap(links);
    }
    task.feed(links);
    task.search(links);
    task = task.on_time(links);
    links.retain(Link::is_open);
    task
}

/// The sources that are ready.
#[derive(Default)]
struct Ready {
    signals: bool,
    listener: bool,
    outputs: Vec<usize>,
    links: Vec<usize>,
}

/// Where an event comes from.
enum Origin {
    Signals,
    Listener,
    Output(usize),
    Input,
    Link(usize),
}

fn wait(task: &Task, links: &[Link], signals: &OwnedFd, timeout: Option<&Timespec>) -> Ready {
    let mut origins = vec![Origin::Signals];
    let mut watched = vec![PollFd::new(signals, PollFlags::IN)];
    if let Some(listener) = task.listener() {
        origins.push(Origin::Listener);
        watched.push(PollFd::from_borrowed_fd(listener, PollFlags::IN));
    }
    for (index, output) in task.outputs() {
        origins.push(Origin::Output(index));
        watched.push(PollFd::from_borrowed_fd(output, PollFlags::IN));
    }
    if links.iter().any(|link| link.pending.input.is_some())
        && let Some(input) = task.input()
    {
        origins.push(Origin::Input);
        watched.push(PollFd::from_borrowed_fd(input, PollFlags::OUT));
    }
    for (index, link) in links.iter().enumerate() {
        origins.push(Origin::Link(index));
        watched.push(PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN));
    }
    let mut ready = Ready::default();
    if poll(&mut watched, timeout).is_err() {
        return ready;
    }
    for (origin, found) in origins.into_iter().zip(watched) {
        if found.revents().is_empty() {
            continue;
        }
        match origin {
            Origin::Signals => ready.signals = true,
            Origin::Listener => ready.listener = true,
            Origin::Output(index) => ready.outputs.push(index),
            // Waiting input is written in every iteration.
            Origin::Input => {}
            Origin::Link(index) => ready.links.push(index),
        }
    }
    ready
}
