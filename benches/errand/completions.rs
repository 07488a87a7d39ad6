//! The completions that were announced, and the callers that wait for them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use errand_proto::v1::{Notification, NotificationKind, SubscribeResponse};
use tokio::sync::oneshot;
use tonic::Streaming;

/// How long a completion may take.
const LIMIT: Duration = Duration::from_mins(2);

/// The completions, by task.
#[derive(Default)]
pub struct Completions {
    slots: Mutex<HashMap<String, Slot>>,
}

enum Slot {
    Arrived(Box<Notification>),
    Awaited(oneshot::Sender<Notification>),
}

impl Completions {
    /// Collects the completions of a subscription until it ends.
    pub async fn collect(self: Arc<Self>, mut stream: Streaming<SubscribeResponse>) {
        while let Ok(Some(message)) = stream.message().await {
            let Some(notification) = message.notification else { continue };
            if notification.kind != i32::from(NotificationKind::Completed) {
                continue;
            }
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.remove(&notification.task_id) {
                Some(Slot::Awaited(waiting)) => drop(waiting.send(notification)),
                Some(Slot::Arrived(_)) | None => {
                    slots.insert(notification.task_id.clone(), Slot::Arrived(Box::new(notification)));
                }
            }
        }
    }

    /// Waits for the completion of one task.
    pub async fn of(&self, task: &str) -> Result<Notification> {
        let arrives = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Slot::Arrived(notification)) = slots.remove(task) {
                return Ok(*notification);
            }
            let (announce, arrives) = oneshot::channel();
            slots.insert(task.to_owned(), Slot::Awaited(announce));
            arrives
        };
        let waited = tokio::time::timeout(LIMIT, arrives).await;
        waited.with_context(|| format!("no notification within {LIMIT:?}"))?.context("the subscription ended")
    }
}
