//! Signals every process of a task, wherever in the sandbox it has moved.

use std::time::Duration;

use rustix::process::Signal;

use crate::{
    process::{self, Stat},
    task_dir::TaskDir,
};
use errand_proto::bridge::{Process, SignalTarget};

/// How often SIGKILL is repeated while processes are left: a killed process may have forked another one just before.
const PASSES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Sends a signal once to the processes that a caller chose. Returns how many there were.
pub(super) fn send(task: &TaskDir, id: &str, leader: Option<Process>, signal: Signal, target: SignalTarget) -> u32 {
    let Some(leader) = leader else { return 0 };
    let mut chosen = members(task, id, Some(leader));
    chosen.retain(|stat| match target {
        SignalTarget::Unspecified => true,
        // The kernel does not reuse a process group's id while the group has members.
        SignalTarget::Group => stat.group == leader.pid,
        SignalTarget::Leader => stat.pid == leader.pid && stat.start_ticks == leader.start_ticks,
    });
    for stat in &chosen {
        process::send(stat.pid, signal);
    }
    u32::try_from(chosen.len()).unwrap_or(u32::MAX)
}

/// Sends a signal to all processes, or only counts when there is none. Returns how many processes there were; after SIGKILL, how many are left.
pub(super) async fn signal(task: &TaskDir, id: &str, leader: Option<Process>, signal: Option<Signal>) -> u32 {
    let mut pass = 0;
    loop {
        let members = members(task, id, leader);
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let Some(signal) = signal.filter(|_| count > 0) else { return count };
        process::send_to_all(&members, signal);
        if let Some(shim) = supervisor(task) {
            // A command may have stopped its shim, and a stopped shim would not record how the command ends.
            process::send(shim.pid, Signal::CONT);
        }
        pass += 1;
        if signal != Signal::KILL || pass == PASSES {
            return count;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The shim that supervises a task.
fn supervisor(task: &TaskDir) -> Option<Process> {
    let processes = task.processes();
    processes.shim.filter(|_| processes.are_supervised() && !task.of_direct_bridge())
}

/// The living processes of a task.
fn members(task: &TaskDir, id: &str, leader: Option<Process>) -> Vec<Stat> {
    if let Some(shim) = supervisor(task) {
        // Every process that the command leaves behind is a descendant of its shim, wherever the process moves. Checked after the
        // descendants are read: a shim that has recorded a drained task may take another one, and the descendants are then those of the
        // other task.
        let below = process::descendants(shim.pid);
        return if task.processes().alone { Vec::new() } else { below };
    }
    // The kernel does not reuse a session id while the session has members; after that, the id may belong to another session.
    let session = leader.map(|leader| leader.pid).filter(|pid| {
        Stat::of(*pid).is_none_or(|stat| leader.is_some_and(|leader| leader.start_ticks == stat.start_ticks))
    });
    let mark = format!("ERRAND_TASK_ID={id}");
    let mut all = process::all();
    all.retain(Stat::lives);
    process::below(&all, |stat| session == Some(stat.session) || process::carries(stat.pid, &mark))
}
