//! Late results: when a stopped sandbox runs again, its files may say how commands ended whose tasks were already recorded as lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use super::{EngineError, Inner, sandboxes::Place};
use errand_store::{BotFilter, TaskQuery};
use errand_task::{
    BotId, Event, Incarnation, NewNotification, NotificationKind, SandboxId, Status, TenantId, sentinel::Sentinel,
};

/// How many lost tasks of a bot are examined, newest first.
const LIMIT: u32 = 256;

/// The incarnations of sandboxes that were already examined.
#[derive(Default)]
pub(super) struct Lives(Mutex<HashMap<SandboxId, Incarnation>>);

impl Lives {
    /// True the first time that this incarnation of a sandbox is seen.
    fn is_new(&self, place: &Place) -> bool {
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lives.get(&place.id) == Some(&place.incarnation) {
            return false;
        }
        lives.insert(place.id, place.incarnation.clone());
        true
    }

    /// Forgets a sandbox that was deleted.
    pub(super) fn forget(&self, sandbox: SandboxId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&sandbox);
    }
}

/// Reads, in the background, the results left in the files of a sandbox that runs again. Does so once for each incarnation of the sandbox.
pub(super) fn look_once(inner: &Arc<Inner>, tenant: &TenantId, bot: &BotId, place: &Place) {
    if !inner.lives.is_new(place) {
        return;
    }
    let (looking, tenant, bot, place) = (Arc::clone(inner), tenant.clone(), bot.clone(), place.clone());
    inner.tracker.spawn(async move {
        let found = tokio::select! {
            () = looking.leave.cancelled() => return,
            found = look(&looking, &tenant, &bot, &place) => found,
        };
        if let Err(error) = found {
            tracing::debug!(%error, %bot, "late results could not be looked for");
        }
    });
}

async fn look(inner: &Inner, tenant: &TenantId, bot: &BotId, place: &Place) -> Result<(), EngineError> {
    let query = TaskQuery {
        tenant: tenant.clone(),
        bots: BotFilter::One(bot.clone()),
        session: None,
        statuses: vec![Status::Lost],
        labels: Default::default(),
        before: None,
        limit: LIMIT,
    };
    let mut lost = inner.store.tasks(query).await?;
    lost.retain(|task| task.sandbox == place.id && task.late_outcome.is_none());
    if lost.is_empty() {
        return Ok(());
    }
    let asked: Vec<_> = lost.iter().map(|task| (task.id, task.nonce)).collect();
    let findings = place.sandbox.bridge.probe(&asked, false).await?;
    for (mut task, finding) in lost.into_iter().zip(findings) {
        // A command that still runs has not written its own result: the file is not its own.
        let Sentinel::Complete(mut ending) = finding.sentinel else { continue };
        if finding.supervised || finding.alive {
            continue;
        }
        inner.masks_of_late(&task).await?.ending(&mut ending);
        let started_at = finding.process.map(|(_, made)| made);
        let at = SystemTime::now();
        if task.apply(Event::Ended { ending, started_at, signalled: true, at }) {
            let notice = NewNotification::new(NotificationKind::LateOutcome, &task, &[], at);
            let notice = task.notify.announces_late_outcome().then_some(notice);
            tracing::info!(task = %task.id, outcome = ?task.late_outcome, "a late result was found");
            let task = inner.store.update_task(task, notice).await?;
            inner.feed.late(&task);
        }
    }
    Ok(())
}
