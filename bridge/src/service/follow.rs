//! Following one task: from the shim's reports and the log to the reports that the server gets, in order.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Status;

use super::link::ShimLink;
use crate::{
    log_reader::LogReader,
    proto::{Ended, Follow, Over, Report, report::Kind, shim_order, shim_report},
    task_dir::TaskDir,
};

/// How often the log is looked at that no shim keeps.
const POLL: Duration = Duration::from_millis(250);

/// Where reports go. It fails when nobody wants them any more.
pub(super) type Reports = mpsc::Sender<Result<Report, Status>>;

/// Nobody listens any more, or nothing more can be told.
struct Gone;

/// Sends the reports of one task.
pub(super) struct Follower {
    task: TaskDir,
    reports: Reports,
    log: Option<LogReader>,
    from: u64,
}

impl Follower {
    /// Reports output from byte `from` on.
    pub(super) fn new(task: TaskDir, reports: Reports, from: u64) -> Self {
        Self { task, reports, log: None, from }
    }

    /// Follows a task that its shim has just been told of, or that it is keeping, until the end.
    pub(super) async fn follow_shim(mut self, mut link: ShimLink) {
        let listener = self.reports.clone();
        tokio::select! {
            _ = self.relay(&mut link) => {}
            () = listener.closed() => {}
        }
    }

    async fn relay(&mut self, link: &mut ShimLink) -> Result<(), Gone> {
        while let Some(said) = link.next().await {
            match said {
                shim_report::Kind::Claimed(claimed) => return self.send(Kind::Claimed(claimed)).await,
                shim_report::Kind::Started(process) => self.send(Kind::Started(process)).await?,
                shim_report::Kind::Activity(activity) => self.send(Kind::Activity(activity)).await?,
                shim_report::Kind::Grew(_) => {
                    self.send_output().await?;
                    let known = self.log.as_ref().map_or(self.from, LogReader::position);
                    // A shim that is gone may have said more before it went.
                    let _ = link.order(shim_order::Kind::Follow(Follow { known })).await;
                }
                shim_report::Kind::Ended(ended) => {
                    self.send_output().await?;
                    self.send(Kind::Ended(ended)).await?;
                }
                shim_report::Kind::Over(over) => {
                    self.send_output().await?;
                    return self.send(Kind::Over(over)).await;
                }
                // Answers to somebody else's questions.
                shim_report::Kind::InputTaken(_) | shim_report::Kind::Resized(_) => {}
            }
        }
        Err(Gone)
    }

    /// Follows a task that has no shim: one of the direct bridge, or one that is over.
    pub(super) async fn follow_files(mut self, nonce: String) {
        let listener = self.reports.clone();
        tokio::select! {
            _ = self.watch(&nonce) => {}
            () = listener.closed() => {}
        }
    }

    async fn watch(&mut self, nonce: &str) -> Result<(), Gone> {
        loop {
            // Looked at first: whoever writes the result does so before it ends.
            let supervised = self.task.supervised();
            let result = self.task.result(nonce);
            self.send_output().await?;
            if let Some(result) = result {
                self.send(Kind::Ended(Ended { result, usage: self.task.usage() })).await?;
                let gap = self.task.gap();
                let bytes = self.task.output_bytes(gap.as_ref());
                let incomplete = self.task.file("incomplete").exists();
                return self.send(Kind::Over(Over { bytes, incomplete, gap })).await;
            }
            if !supervised {
                return Err(Gone);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends all that the log holds by now.
    async fn send_output(&mut self) -> Result<(), Gone> {
        if self.log.is_none() {
            // A log that cannot be read does not keep the end from being told.
            self.log = LogReader::open(&self.task, self.from).ok();
        }
        while let Some(log) = &mut self.log
            && let Ok(Some(output)) = log.next(u64::MAX)
        {
            self.send(Kind::Output(output)).await?;
        }
        Ok(())
    }

    async fn send(&self, kind: Kind) -> Result<(), Gone> {
        self.reports.send(Ok(Report { kind: Some(kind) })).await.map_err(|_| Gone)
    }
}
