//! Whether the server is ready: what health reports, and whether requests are admitted.
//!
//! Until reconciliation is over, a task's stored state may be long out of date, so the server answers no requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tonic::{Status, server::NamedService};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::{NotificationServer, SandboxServer, TaskServer, status};

/// When to retry while the server reconciles.
const RETRY_DELAY: Duration = Duration::from_secs(1);

const RECONCILING: u8 = 0;
const SERVING: u8 = 1;
const ENDING: u8 = 2;

/// The phase of the server: reconciling, serving, ending. It only moves forward. Cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    phase: Arc<AtomicU8>,
    reporter: HealthReporter,
}

impl Readiness {
    /// Begins in the reconciling phase.
    pub async fn new() -> Self {
        let readiness = Self { phase: Arc::new(AtomicU8::new(RECONCILING)), reporter: HealthReporter::new() };
        readiness.report(ServingStatus::NotServing).await;
        readiness
    }

    /// Reconciliation is over. Has no effect once the server is shutting down.
    pub async fn serving(&self) {
        if self.phase.compare_exchange(RECONCILING, SERVING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.report(ServingStatus::Serving).await;
        }
    }

    /// The server is shutting down.
    pub async fn ending(&self) {
        self.phase.store(ENDING, Ordering::Release);
        self.report(ServingStatus::NotServing).await;
    }

    /// Refuses a request unless the server is serving.
    ///
    /// # Errors
    /// UNAVAILABLE.
    pub(super) fn check(&self) -> Result<(), Status> {
        match self.phase.load(Ordering::Acquire) {
            SERVING => Ok(()),
            ENDING => Err(status::shutting_down()),
            _ => Err(status::unavailable("the server is reconciling its tasks; try again in a moment", RETRY_DELAY)),
        }
    }

    pub(super) fn health_server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    async fn report(&self, serving: ServingStatus) {
        // The empty name stands for the server as a whole.
        for service in ["", TaskServer::NAME, NotificationServer::NAME, SandboxServer::NAME] {
            self.reporter.set_service_status(service, serving).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use tonic_types::StatusExt as _;

    use super::*;

    #[tokio::test]
    async fn requests_pass_while_the_server_serves() {
        let readiness = Readiness::new().await;
        let early = readiness.check().unwrap_err();
        assert_eq!(early.code(), tonic::Code::Unavailable);
        assert_eq!(early.message(), "the server is reconciling its tasks; try again in a moment");
        assert_eq!(early.get_details_retry_info().unwrap().retry_delay, Some(RETRY_DELAY));
        readiness.serving().await;
        assert!(readiness.check().is_ok());
        readiness.ending().await;
        readiness.serving().await;
        assert_eq!(readiness.check().unwrap_err().message(), "the server is shutting down");
    }
}
