//! Signalling everything that belongs to a task, wherever in the sandbox it has gone.

use std::time::Duration;

use rustix::process::Signal;

use crate::{
    process::{self, Stat},
    task_dir::TaskDir,
};
use errand_proto::bridge::Process;

/// How often SIGKILL is repeated while something is left: what is killed may have made another process just before.
const PASSES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Sends a signal, or with none only counts. How many processes there were; after SIGKILL, how many are left.
pub(super) async fn signal(task: &TaskDir, id: &str, leader: Option<Process>, signal: Option<Signal>) -> u32 {
    let mut pass = 0;
    loop {
        let members = members(task, id, leader);
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let Some(signal) = signal.filter(|_| count > 0) else { return count };
        process::send_to_all(&members, signal);
        if let Some(shim) = supervisor(task) {
            // A command may have stopped it, and then nobody would tell how the command ended.
            process::send(shim.pid, Signal::CONT);
        }
        pass += 1;
        if signal != Signal::KILL || pass == PASSES {
            return count;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The shim that keeps a task.
fn supervisor(task: &TaskDir) -> Option<Process> {
    let processes = task.processes();
    processes.shim.filter(|_| processes.are_supervised() && !task.of_direct_bridge())
}

/// The living processes of a task.
fn members(task: &TaskDir, id: &str, leader: Option<Process>) -> Vec<Stat> {
    if let Some(shim) = supervisor(task) {
        // Whatever the command leaves behind is its shim's, wherever it goes. Asked afterwards: a shim that has written down that nothing
        // is left takes another task, whose processes are then below it.
        let below = process::descendants(shim.pid);
        return if task.processes().alone { Vec::new() } else { below };
    }
    // The number of a session is not given out again while it has members; after that it may belong to a stranger.
    let session = leader.map(|leader| leader.pid).filter(|pid| {
        Stat::of(*pid).is_none_or(|stat| leader.is_some_and(|leader| leader.start_ticks == stat.start_ticks))
    });
    let mark = format!("ERRAND_TASK_ID={id}");
    let mut all = process::all();
    all.retain(Stat::lives);
    process::below(&all, |stat| session == Some(stat.session) || process::carries(stat.pid, &mark))
}
