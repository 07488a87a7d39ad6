//! A shim that has no task, and the rules by which a shim that has had one may take another: making a process costs more than most commands.
//!
//! The invariant: nothing of one task reaches the next one through its shim. So a shim is reused only if
//!
//! 1. the end of its task is recorded, with the mark that no process was left: the next task's processes are all of the shim's children;
//! 2. its connection to the bridge process still exists: nothing else can ask for a launch;
//! 3. its budget is not used up: each command's process shares the shim's memory until it executes its program, and leaves some of its
//!    memory behind.
//!
//! What a shim has of a task, and what becomes of it before the next one:
//!
//! | what | before the next task |
//! |---|---|
//! | the log, the streams, the exit file, the control socket, timers, usage | owned by [`Task`], which is dropped |
//! | connections that followed the task | closed |
//! | what is pending on the connection that asks for launches: a report of growth, input, a report of the start, a search for watches | reset by [`Link::without_task`] |
//! | orders that arrived after the end | dropped by [`FreeShim::next_launch`] |
//! | the count of processes killed for lack of memory | a difference: each task begins with its own count |
//! | user, groups, limits, niceness, umask, working directory, environment, signals | never the shim's own: the command's process sets them after the fork |
//!
//! What stays is the same for every task: the connection, the descriptor for signals, the file with the count of kills, and free memory.

use std::path::Path;

use prost::Message as _;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::{QUIET, link::Link, spare};
use errand_proto::bridge::{LaunchRequest, shim_order::Kind as Order};

/// The most tasks of one shim.
const TASKS: u32 = 100;
/// After a launch request of this many bytes a shim takes no other task: every program executed from it inherits the high-water mark of its
/// memory.
const LARGE: usize = 64 * 1024;

/// How many more tasks a shim may take after its current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget(u32);

impl Budget {
    /// The budget after one more task, whose request has `size` bytes.
    fn spend(self, size: usize) -> Self {
        if size > LARGE { Self(0) } else { Self(self.0.saturating_sub(1)) }
    }

    /// The budget if another task may follow.
    pub(super) fn for_another(self) -> Option<Self> {
        (self.0 > 0).then_some(self)
    }
}

/// A shim without a task.
pub(super) struct FreeShim {
    link: Link,
    budget: Budget,
}

/// A launch that a free shim was asked for.
pub(super) struct Launch {
    /// The connection that asked.
    pub(super) link: Link,
    pub(super) request: LaunchRequest,
    /// What the shim has left for later tasks.
    pub(super) budget: Budget,
}

impl FreeShim {
    /// A new shim, with the connection that it is started with.
    pub(super) fn new(link: Link) -> Self {
        Self { link, budget: Budget(TASKS) }
    }

    /// The shim after a task. `budget` comes from the task, which gives one only if its end allows a next task. None when the connection
    /// that asks for launches is gone.
    pub(super) fn after(budget: Budget, links: Vec<Link>) -> Option<Self> {
        let link = links.into_iter().find(Link::launches)?;
        Some(Self { link: link.without_task(), budget })
    }

    /// Waits for the next launch request; none when no more can come.
    pub(super) fn next_launch(self, root: &Path) -> Option<Launch> {
        let Self { mut link, budget } = self;
        let mut quiet = Some(&QUIET);
        loop {
            // Any other order was meant for the previous task.
            let launch = link.orders().into_iter().find_map(|order| match order.kind {
                Some(Order::Launch(request)) => Some(request),
                _ => None,
            });
            if let Some(request) = launch {
                let budget = budget.spend(request.encoded_len());
                return Some(Launch { link, request, budget });
            }
            if !link.is_open() {
                return None;
            }
            let mut wait = [PollFd::new(&link, PollFlags::IN)];
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
}

#[cfg(test)]
mod tests;
