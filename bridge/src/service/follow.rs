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
const POLL: Duration = Duration::from_millis(100);

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
    ended: bool,
    /// Whether anything was reported.
    said: bool,
}

impl Follower {
    /// Reports on a launch, with its output from byte `from` on.
    pub(super) fn new(task: TaskDir, nonce: String, reports: Reports, from: u64) -> Self {
        Self { task, nonce, reports, log: None, from, ended: false, said: false }
    }

    /// Follows a launch that a shim was just asked for.
    pub(super) async fn follow_launch(mut self, link: ShimLink) {
        let listener = self.reports.clone();
        tokio::select! {
            _ = self.tell_launch(link) => {}
            () = listener.closed() => {}
        }
    }

    async fn tell_launch(&mut self, mut link: ShimLink) -> Result<(), Unheard> {
        match self.relay(&mut link).await? {
            Told::All => Ok(()),
            // The connection had no other end, or one that was gone before it had begun.
            Told::NotTheEnd if !self.said && !self.task.path().exists() => {
                let result =
                    format!("failed fork_refused {} no process could be made", rustix::io::Errno::AGAIN.raw_os_error());
                self.send_end(Ended { result, usage: None }).await?;
                self.send(Kind::Over(Over::default())).await
            }
            Told::NotTheEnd => self.watch().await,
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
        if let Some(mut link) = link
            && let Told::All = self.relay(&mut link).await?
        {
            return Ok(());
        }
        self.watch().await
    }

    async fn relay(&mut self, link: &mut ShimLink) -> Result<Told, Unheard> {
        while let Some(said) = link.next().await {
            match said {
                shim_report::Kind::Claimed(claimed) => {
                    self.send(Kind::Claimed(claimed)).await?;
                    return Ok(Told::All);
                }
                shim_report::Kind::Started(process) => self.send(Kind::Started(process)).await?,
                shim_report::Kind::Activity(activity) => self.send(Kind::Activity(activity)).await?,
                shim_report::Kind::Grew(_) => {
                    self.send_output().await?;
                    let known = self.log.as_ref().map_or(self.from, LogReader::position);
                    // A shim that is gone may have said more before it went.
                    let _ = link.order(shim_order::Kind::Follow(Follow { known })).await;
                }
                shim_report::Kind::Ended(ended) => self.send_end(ended).await?,
                shim_report::Kind::Over(over) => {
                    self.send_output().await?;
                    self.send(Kind::Over(over)).await?;
                    return Ok(Told::All);
                }
                // Answers to somebody else's questions.
                shim_report::Kind::InputTaken(_) | shim_report::Kind::Resized(_) => {}
            }
        }
        Ok(Told::NotTheEnd)
    }

    /// Tells what the files of a task say that has no shim: one of the direct bridge, or one that is over. Ends without a word where nothing
    /// says how it ended.
    async fn watch(&mut self) -> Result<(), Unheard> {
        loop {
            // Looked at first: whoever writes the result does so before it ends.
            let supervised = self.task.supervised();
            let result = self.task.result(&self.nonce);
            self.send_output().await?;
            if let Some(result) = result {
                self.send_end(Ended { result, usage: self.task.usage() }).await?;
                let gap = self.task.gap();
                let bytes = self.task.output_bytes(gap.as_ref());
                let incomplete = self.task.file("incomplete").exists();
                return self.send(Kind::Over(Over { bytes, incomplete, gap })).await;
            }
            if !supervised {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
            // A shim that was only just made has its socket by now.
            if let Ok(mut link) = ShimLink::connect(&self.task) {
                let known = self.log.as_ref().map_or(self.from, LogReader::position);
                let _ = link.order(shim_order::Kind::Follow(Follow { known })).await;
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
        self.send_output().await?;
        self.send(Kind::Ended(ended)).await
    }

    /// Sends all that the log holds by now.
    async fn send_output(&mut self) -> Result<(), Unheard> {
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

    async fn send(&mut self, kind: Kind) -> Result<(), Unheard> {
        self.said = true;
        self.reports.send(Ok(Report { kind: Some(kind) })).await.map_err(|_| Unheard)
    }
}
