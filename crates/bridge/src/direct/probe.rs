//! Parses the output of `probe.sh`.

use std::time::Duration;

use crate::{Finding, clock};
use errand_task::{Nonce, ProcessIdentity, TaskId, sentinel};

/// Clock ticks in a second as user space sees them (USER_HZ), the same on every Linux architecture in use.
const TICKS_PER_SECOND: u64 = 100;

/// Parses a complete answer. None when it is malformed, or answers other questions.
pub(super) fn parse(mut answer: &[u8], asked: &[(TaskId, Nonce)]) -> Option<Vec<Finding>> {
    let uptime = take_line(&mut answer)?.strip_prefix("uptime ")?.parse().ok()?;
    let findings =
        asked.iter().map(|(task, nonce)| finding(&mut answer, *task, *nonce, uptime)).collect::<Option<_>>()?;
    answer.is_empty().then_some(findings)
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&rest[..end]).ok()?;
    *rest = &rest[end + 1..];
    Some(line)
}

fn finding(rest: &mut &[u8], task: TaskId, nonce: Nonce, uptime: u64) -> Option<Finding> {
    let words: Vec<&str> = take_line(rest)?.split(' ').collect();
    let [
        "task",
        id,
        directory,
        started,
        pid,
        ticks,
        alive,
        supervised,
        size,
        incomplete,
        lacks,
        resumes,
        kills,
        length,
    ] = words[..]
    else {
        return None;
    };
    if id.parse() != Ok(task) {
        return None;
    }
    let content = if length == "-" {
        take_line(rest)?;
        None
    } else {
        let length: usize = length.parse().ok()?;
        let content = rest.get(..length)?;
        *rest = rest.get(length..)?.strip_prefix(b"\n")?;
        Some(content)
    };
    // The numbers come from files in the sandbox. One that is malformed must not spoil the answers about other tasks.
    let (pid, start_ticks): (u32, u64) = (pid.parse().unwrap_or(0), ticks.parse().unwrap_or(0));
    let since_boot = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000) / TICKS_PER_SECOND);
    let made = clock::ago(since_boot(uptime), since_boot(start_ticks));
    let output_bytes = size.parse::<u64>().unwrap_or(0).min(i64::MAX as u64);
    Some(Finding {
        directory: directory == "1",
        started: started == "1",
        process: (pid > 0).then_some((ProcessIdentity { pid, start_ticks }, made)),
        alive: alive == "1",
        supervised: supervised == "1",
        sentinel: sentinel::read(content, nonce),
        output_bytes,
        incomplete: incomplete == "1",
        gap: super::gap(lacks, resumes, output_bytes),
        usage: None,
        oom_kills: kills.parse().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use errand_task::{Ending, Gap, sentinel::Sentinel};

    #[test]
    fn findings_follow_the_order_of_the_request() {
        let asked = [(TaskId::new(), Nonce::new()), (TaskId::new(), Nonce::new())];
        let exit = format!("errand 1 {} exited 4\n", asked[1].1);
        let answer = format!(
            "uptime 1000\ntask {} 1 1 17 250 1 1 9 0 - - 0 -\n\ntask {} 1 1 18 300 0 0 5 1 2 4 3 {}\n{exit}\n",
            asked[0].0,
            asked[1].0,
            exit.len(),
        );
        let findings = parse(answer.as_bytes(), &asked).unwrap();
        let (process, made) = findings[0].process.unwrap();
        assert_eq!(process, ProcessIdentity { pid: 17, start_ticks: 250 });
        // 1000 - 250 ticks ago.
        assert_eq!(made.elapsed().unwrap().as_millis() / 1000, 7);
        assert!(findings[0].alive);
        assert_eq!(findings[0].sentinel, Sentinel::Absent);
        assert_eq!(findings[1].sentinel, Sentinel::Complete(Ending::Exited(4)));
        assert!(findings[1].incomplete);
        assert_eq!((findings[0].gap, findings[0].oom_kills), (None, 0));
        assert_eq!((findings[1].gap, findings[1].oom_kills), (Some(Gap { start: 2, end: 4 }), 3));
    }

    #[test]
    fn incomplete_or_foreign_answer_is_refused() {
        let asked = [(TaskId::new(), Nonce::new())];
        let answer = format!("uptime 1\ntask {} 0 0 0 0 0 0 0 0 - - 0 -\n\n", asked[0].0);
        assert!(parse(answer.as_bytes(), &asked).is_some());
        for cut in 0..answer.len() {
            assert!(parse(&answer.as_bytes()[..cut], &asked).is_none(), "{cut}");
        }
        assert!(parse(answer.as_bytes(), &[(TaskId::new(), Nonce::new())]).is_none());
    }
}
