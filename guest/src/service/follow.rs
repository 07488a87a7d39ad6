//! Follows one task: turns the shim's reports and the log into an ordered stream of reports for the server.

use std::{io, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{free::FreeShims, link::ShimLink};
use crate::{log_reader::LogReader, task_dir::TaskDir};
use errand_proto::bridge::{Ended, Over, Report, Skipped, Watch, report::Kind, shim_report};

/// How often the log is read when no shim supervises the task.
const POLL: Duration = Duration::from_millis(100);

/// A server that is more than this many bytes behind gets the tail only, if it allowed that. The log keeps the rest.
const FAR_BEHIND: u64 = 4 * 1024 * 1024;
/// The size of the tail in bytes: as much as the server holds in memory.
const TAIL: u64 = 128 * 1024;
/// How long no further output is reported after some was skipped.
const REST: Duration = Duration::from_millis(100);

/// Where reports go. Sending fails once the server has closed the stream.
pub(super) type Reports = mpsc::Sender<Result<Report, Status>>;

/// The receiver of the reports is gone.
struct Unheard;

/// How much of the task's end the shim reported before its connection closed.
enum Told {
    /// The shim reported everything.
    All,
    /// The shim exited before it reported the end. The task directory holds the rest.
    NotTheEnd,
}

/// Sends the reports of one task.
pub(super) struct Follower {
    task: TaskDir,
    nonce: String,
    reports: Reports,
    log: Option<LogReader>,
    from: u64,
    may_skip: bool,
    /// What the shim is asked to search the output for.
    watches: Vec<Watch>,
    /// No output is reported before this time, after some was skipped.
    rest: Option<Instant>,
    ended: bool,
}

impl Follower {
    /// Reports on a launch, with its output from position `from` on.
    pub(super) fn new(task: TaskDir, nonce: String, reports: Reports, from: u64, may_skip: bool) -> Self {
        Self { task, nonce, reports, log: None, from, may_skip, watches: Vec::new(), rest: None, ended: false }
    }

    /// Also reports matches of these watches.
    pub(super) fn watching(self, watches: Vec<Watch>) -> Self {
        Self { watches, ..self }
    }

    /// Asks a shim to search for the watches.
    pub(super) async fn arm(&self, link: &mut ShimLink) -> io::Result<()> {
        if self.watches.is_empty() { Ok(()) } else { link.watch(self.watches.clone()).await }
    }

    /// Follows a launch that a shim was just asked for. Keeps the shim for another task if it becomes free.
    pub(super) async fn follow_launch(mut self, mut link: ShimLink, free: FreeShims) {
        let listener = self.reports.clone();
        tokio::select! {
            _ = self.tell_through(&mut link) => {}
            () = listener.closed() => return,
        }
        if link.is_free() {
            free.put(link);
        }
    }

    /// Follows the task to its end: through its shim while the shim runs, through the task's files otherwise.
    pub(super) async fn follow(mut self, link: Option<ShimLink>) {
        let listener = self.reports.clone();
        tokio::select! {
            _ = self.tell(link) => {}
            () = listener.closed() => {}
        }
    }

    async fn tell(&mut self, link: Option<ShimLink>) -> Result<(), Unheard> {
        match link {
            Some(mut link) => self.tell_through(&mut link).await,
            None => self.watch().await,
        }
    }

    async fn tell_through(&mut self, link: &mut ShimLink) -> Result<(), Unheard> {
        match self.relay(link).await? {
            Told::All => Ok(()),
            Told::NotTheEnd => self.watch().await,
        }
    }

    async fn relay(&mut self, link: &mut ShimLink) -> Result<Told, Unheard> {
        let mut end = None;
        loop {
            let said = tokio::select! {
                said = link.next() => said,
                () = rested(self.rest) => {
                    self.ask_for_growth(link).await;
                    continue;
                }
            };
            let Some(said) = said else {
                if let Some(end) = end {
                    self.send_output().await?;
                    self.send_end(end).await?;
                }
                return Ok(Told::NotTheEnd);
            };
            match said {
                shim_report::Kind::Claimed(claimed) => {
                    self.send(Kind::Claimed(claimed)).await?;
                    return Ok(Told::All);
                }
                shim_report::Kind::Started(started) => self.send(Kind::Started(started)).await?,
                shim_report::Kind::Activity(activity) => self.send(Kind::Activity(activity)).await?,
                shim_report::Kind::Watching(watching) => self.send(Kind::Watching(watching)).await?,
                shim_report::Kind::Matched(matched) => {
                    // The server believes in no match beyond the output that it knows.
                    self.send_output().await?;
                    self.send(Kind::Matched(matched)).await?;
                    // A shim that has exited has nothing more to report.
                    let _ = link.more_matches().await;
                }
                shim_report::Kind::Grew(_) => {
                    self.send_output().await?;
                    if self.rest.is_none() {
                        self.ask_for_growth(link).await;
                    }
                }
                // Held back until the output's size is known: without output, there is no log to read.
                shim_report::Kind::Ended(ended) => end = Some(ended),
                shim_report::Kind::Over(over) => {
                    if over.bytes > self.position() {
                        self.send_output().await?;
                    }
                    if let Some(end) = end {
                        self.send_end(end).await?;
                    }
                    self.send(Kind::Over(over)).await?;
                    return Ok(Told::All);
                }
                // Answers to other callers' requests, and reports that come after the end.
                shim_report::Kind::InputTaken(_) | shim_report::Kind::Resized(_) | shim_report::Kind::Free(_) => {}
            }
        }
    }

    /// The position up to which output was sent.
    fn position(&self) -> u64 {
        self.log.as_ref().map_or(self.from, LogReader::position)
    }

    /// Asks the shim to report when there is more output.
    async fn ask_for_growth(&mut self, link: &mut ShimLink) {
        self.rest = None;
        let known = self.position();
        // A shim that has exited may have sent reports before; they are still read.
        let _ = link.follow(known).await;
    }

    /// Reports from the files of a task without a shim: a task of the direct bridge, or one that is over. Reports no end when no file says
    /// how the task ended.
    async fn watch(&mut self) -> Result<(), Unheard> {
        loop {
            // Checked before the result: the process that writes the result does so before it exits.
            let supervised = self.task.supervised();
            // A result that exists before the command has ended is forged.
            let result = self.task.result(&self.nonce).filter(|_| !self.task.processes().is_running());
            self.send_output().await?;
            if let Some(result) = result {
                self.send_end(Ended { result, usage: self.task.processes().usage }).await?;
                let gap = self.task.gap();
                let bytes = self.task.output_bytes(gap.as_ref());
                let incomplete = self.task.is_incomplete();
                return self.send(Kind::Over(Over { bytes, incomplete, gap })).await;
            }
            if !supervised {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
            // A shim that was still starting before has its socket by now.
            if let Ok(mut link) = ShimLink::connect(&self.task) {
                // A shim that cannot be asked has exited; its last reports are still read.
                let _ = self.arm(&mut link).await;
                self.ask_for_growth(&mut link).await;
                if let Told::All = self.relay(&mut link).await? {
                    return Ok(());
                }
            }
        }
    }

    async fn send_end(&mut self, ended: Ended) -> Result<(), Unheard> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.send(Kind::Ended(ended)).await
    }

    /// Sends the output that the log holds by now, or only its tail when too much of it is unsent.
    async fn send_output(&mut self) -> Result<(), Unheard> {
        if self.log.is_none() {
            // A log that cannot be read must not keep the end from being reported.
            self.log = LogReader::open(&self.task, self.from).ok();
        }
        let mut until = u64::MAX;
        while let Some(log) = &mut self.log {
            if self.may_skip && until == u64::MAX && log.is_behind(FAR_BEHIND) {
                until = log.skip_to_tail(TAIL);
                let to = log.position();
                self.rest = Some(Instant::now() + REST);
                self.send(Kind::Skipped(Skipped { to })).await?;
                continue;
            }
            let left = until.saturating_sub(log.position());
            match log.next(left) {
                Ok(Some(output)) if left > 0 => self.send(Kind::Output(output)).await?,
                Ok(_) | Err(_) => break,
            }
        }
        Ok(())
    }

    async fn send(&mut self, kind: Kind) -> Result<(), Unheard> {
        self.reports.send(Ok(Report { kind: Some(kind) })).await.map_err(|_| Unheard)
    }
}

/// Waits until this time; for ever when there is none.
async fn rested(rest: Option<Instant>) {
    match rest {
        Some(rest) => tokio::time::sleep_until(rest).await,
        None => std::future::pending().await,
    }
}
