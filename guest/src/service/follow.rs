//! Following one task: from the shim's reports and the log to the reports that the server gets, in order.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{free::FreeShims, link::ShimLink};
use crate::{log_reader::LogReader, task_dir::TaskDir};
use errand_proto::bridge::{Ended, Over, Report, Skipped, report::Kind, shim_report};

/// How often the log is looked at that no shim keeps.
const POLL: Duration = Duration::from_millis(100);

/// Whoever is so many bytes behind gets the tail only, if that was allowed: the log has the rest for those who want it.
const FAR_BEHIND: u64 = 4 * 1024 * 1024;
/// The tail, in bytes: what the server holds in memory.
const TAIL: u64 = 128 * 1024;
/// How long nothing is reported of a command's output then.
const REST: Duration = Duration::from_millis(100);

/// Where reports go. It fails when nobody wants them any more.
pub(super) type Reports = mpsc::Sender<Result<Report, Status>>;

/// Nobody listens any more.
struct Unheard;

/// What a shim's words left to be told.
enum Told {
    /// Nothing.
    All,
    /// The shim went before it had told the end. What it has written down says the rest.
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
    /// Until when output is not reported, after some was skipped.
    rest: Option<Instant>,
    ended: bool,
}

impl Follower {
    /// Reports on a launch, with its output from byte `from` on.
    pub(super) fn new(task: TaskDir, nonce: String, reports: Reports, from: u64, may_skip: bool) -> Self {
        Self { task, nonce, reports, log: None, from, may_skip, rest: None, ended: false }
    }

    /// Follows a launch that a shim was just asked for, and keeps the shim if it is free then.
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

    /// Follows the task to its end: through its shim as long as that is there, by its files otherwise.
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
                shim_report::Kind::Grew(_) => {
                    self.send_output().await?;
                    if self.rest.is_none() {
                        self.ask_for_growth(link).await;
                    }
                }
                // Told when it is known how much was printed: where that is nothing, there is no log to look into.
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
                // Answers to somebody else's questions, and what is said after the end.
                shim_report::Kind::InputTaken(_) | shim_report::Kind::Resized(_) | shim_report::Kind::Free(_) => {}
            }
        }
    }

    /// How far the output was sent.
    fn position(&self) -> u64 {
        self.log.as_ref().map_or(self.from, LogReader::position)
    }

    /// Lets a shim say when there is more.
    async fn ask_for_growth(&mut self, link: &mut ShimLink) {
        self.rest = None;
        let known = self.position();
        // A shim that is gone may have said more before it went.
        let _ = link.follow(known).await;
    }

    /// Tells what the files of a task say that has no shim: one of the direct bridge, or one that is over. Ends without a word where nothing
    /// says how it ended.
    async fn watch(&mut self) -> Result<(), Unheard> {
        loop {
            // Looked at first: whoever writes the result does so before it ends.
            let supervised = self.task.supervised();
            // A result that is there before the command has ended is forged.
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
            // A shim that was only just made has its socket by now.
            if let Ok(mut link) = ShimLink::connect(&self.task) {
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

    /// Sends what the log holds by now: all of it, or its tail where that is far ahead.
    async fn send_output(&mut self) -> Result<(), Unheard> {
        if self.log.is_none() {
            // A log that cannot be read does not keep the end from being told.
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

/// Waits until then; for ever where there is no such time.
async fn rested(rest: Option<Instant>) {
    match rest {
        Some(rest) => tokio::time::sleep_until(rest).await,
        None => std::future::pending().await,
    }
}
