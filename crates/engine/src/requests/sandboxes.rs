//! Making, adopting, stopping and deleting sandboxes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{SandboxState, SandboxView};
use crate::{Engine, EngineError, Inner, retention::outputs};
use errand_store::Scope;
use errand_task::{BotId, SandboxId, SandboxSpec, StopCause, TenantId};

/// How long beyond the grace a sandbox's tasks may take to end. After that, the sandbox is stopped with its tasks still running.
const STOP_LIMIT: Duration = Duration::from_secs(10);

impl Engine {
    /// Makes the bot's sandbox, starts it, or finds it running.
    ///
    /// # Errors
    /// When the sandbox exists with another specification, or the runtime refuses.
    pub async fn ensure_sandbox(
        &self,
        tenant: TenantId,
        bot: BotId,
        spec: Option<SandboxSpec>,
    ) -> Result<SandboxView, EngineError> {
        let inner = Arc::clone(&self.inner);
        self.run_to_completion(async move {
            let _busy = inner.activity.begin(&tenant, &bot);
            inner.reconciling.wait_for(&tenant, &bot).await?;
            let (view, place) = inner.sandboxes.ensure(&tenant, &bot, spec).await?;
            let view = with_bridge(&inner, view).await;
            crate::late::look_once(&inner, &tenant, &bot, &place);
            Ok(view)
        })
        .await
    }

    /// Takes a running container as the bot's sandbox. The container's labels must name the tenant; with `any`, a container without such
    /// labels is accepted too.
    ///
    /// # Errors
    /// When the container does not exist, is not the tenant's, does not run or is another bot's sandbox, or the bot has another sandbox.
    pub async fn adopt_sandbox(
        &self,
        tenant: TenantId,
        bot: BotId,
        container: String,
        any: bool,
    ) -> Result<SandboxView, EngineError> {
        let inner = Arc::clone(&self.inner);
        self.run_to_completion(async move {
            inner.reconciling.wait_for(&tenant, &bot).await?;
            let view = inner.sandboxes.adopt(&tenant, &bot, &container, any).await?;
            Ok(with_bridge(&inner, view).await)
        })
        .await
    }

    /// The bot's sandbox and its current state in the runtime.
    ///
    /// # Errors
    /// [`EngineError::NoSandbox`].
    pub async fn sandbox(&self, tenant: &TenantId, bot: &BotId) -> Result<SandboxView, EngineError> {
        self.inner.sandboxes.view(tenant, bot).await
    }

    /// A tenant's sandboxes, oldest first, starting after the id `after`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sandboxes(
        &self,
        tenant: &TenantId,
        after: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxView>, EngineError> {
        self.inner.sandboxes.list(tenant, after, limit).await
    }

    /// Stops the bot's tasks, retains what is not retained of their output, then stops its sandbox. An adopted container is left running.
    ///
    /// # Errors
    /// [`EngineError::NoSandbox`], or when the runtime fails.
    pub async fn stop_sandbox(&self, tenant: TenantId, bot: BotId) -> Result<SandboxView, EngineError> {
        let engine = self.clone();
        self.run_to_completion(async move {
            engine.inner.reconciling.wait_for(&tenant, &bot).await?;
            engine.end_tasks(&tenant, &bot, StopCause::SandboxStopped).await?;
            outputs::before_end(&engine.inner, &tenant, &bot).await;
            engine.inner.sandboxes.stop(&tenant, &bot).await
        })
        .await
    }

    /// Stops the bot's tasks, retains what is not retained of their output, then removes its sandbox. An adopted container is not removed, only
    /// forgotten.
    ///
    /// # Errors
    /// [`EngineError::NoSandbox`], or when the runtime fails.
    pub async fn delete_sandbox(&self, tenant: TenantId, bot: BotId) -> Result<(), EngineError> {
        let engine = self.clone();
        self.run_to_completion(async move {
            engine.inner.reconciling.wait_for(&tenant, &bot).await?;
            engine.end_tasks(&tenant, &bot, StopCause::SandboxDeleted).await?;
            outputs::before_end(&engine.inner, &tenant, &bot).await;
            let id = engine.inner.sandboxes.delete(&tenant, &bot).await?;
            engine.inner.lives.forget(id);
            Ok(())
        })
        .await
    }

    pub(crate) async fn end_tasks(&self, tenant: &TenantId, bot: &BotId, cause: StopCause) -> Result<(), EngineError> {
        // Fails first if there is no sandbox, before anything is stopped.
        self.sandbox(tenant, bot).await?;
        let started = Instant::now();
        let scope = Scope { tenant: tenant.clone(), bot: bot.clone(), session: None };
        let grace = self.inner.settings.stop_grace;
        match tokio::time::timeout(grace + STOP_LIMIT, self.stop_all(&scope, cause, grace)).await {
            Ok(stopped) => {
                tracing::info!(%bot, tasks = stopped?.len(), took = ?started.elapsed(), "a sandbox's tasks were stopped");
            }
            // Stopping the sandbox ends the remaining tasks.
            Err(_) => tracing::warn!(%bot, "a sandbox's tasks could not be stopped in time"),
        }
        Ok(())
    }
}

async fn prepare(inner: &Inner, view: &SandboxView) -> Result<(), EngineError> {
    inner.sandboxes.handle(&view.record)?.bridge.prepare().await?;
    Ok(())
}

/// Prepares the bridge of a running sandbox, so that the first command does not wait for it. If that fails, the first command tries again
/// and reports the error.
async fn with_bridge(inner: &Inner, view: SandboxView) -> SandboxView {
    if view.state == SandboxState::Running
        && let Err(error) = prepare(inner, &view).await
    {
        tracing::warn!(sandbox = %view.record.id, %error, "the bridge is not ready yet");
    }
    view
}
