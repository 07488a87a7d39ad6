//! Keeps secrets out of everything that leaves the engine: records, notifications, previews, events, errors, the server's log, and output.
//!
//! [`TaskMasks`] hides the secrets of one task. Texts are masked where they enter the engine ([`conceal`], [`TaskMasks::input`]) and where
//! they leave it towards the store and callers ([`TaskMasks::progress`], [`TaskMasks::notification`]); output is masked where it is read
//! (`pieces`, and `stream`). [`MaskPolicies`] says what the operator and each tenant want masked.

mod concealing;
mod pieces;
mod policy;
mod streaming;
mod texts;

use std::{collections::BTreeMap, sync::Arc};

use super::{EngineError, Inner};
use errand_masks::{Masks, Values};
use errand_runtime::RuntimeError;
use errand_secrets::VaultError;
use errand_store::StoreError;
use errand_task::{Secret, Task, TaskSpec, TenantId};

pub(super) use concealing::{conceal, is_same_program};
pub(super) use pieces::{mask_pieces, mask_retained};
pub use policy::{MaskPolicies, MaskReads, MaskRules};
pub(super) use streaming::StreamMasking;

/// Hides the secrets of one task. Cheap to clone.
#[derive(Clone)]
pub(super) struct TaskMasks {
    /// None: the values cannot be decrypted, so everything is hidden.
    values: Option<Arc<Values>>,
    policies: MaskPolicies,
    tenant: TenantId,
}

impl TaskMasks {
    /// The masks of a task with these values.
    pub(super) fn new<'a>(
        policies: &MaskPolicies,
        tenant: &TenantId,
        values: impl IntoIterator<Item = &'a Secret>,
    ) -> Self {
        let values = Values::new(values.into_iter().map(Secret::expose));
        Self { values: Some(Arc::new(values)), policies: policies.clone(), tenant: tenant.clone() }
    }

    /// The masks of a new task.
    pub(super) fn of_request(policies: &MaskPolicies, tenant: &TenantId, secrets: &BTreeMap<String, Secret>) -> Self {
        Self::new(policies, tenant, secrets.values())
    }

    /// Hides everything that a task says.
    fn of_everything(policies: &MaskPolicies, tenant: &TenantId) -> Self {
        Self { values: None, policies: policies.clone(), tenant: tenant.clone() }
    }

    /// What is hidden in texts: the values, and what the patterns match.
    pub(super) fn of_texts(&self) -> Masks {
        self.of_values().and_patterns(&self.policies.of(&self.tenant).patterns)
    }

    /// What is hidden in output that callers read.
    pub(super) fn of_reads(&self) -> Masks {
        match self.policies.of(&self.tenant).reads {
            MaskReads::Off => Masks::none(),
            MaskReads::Values => self.of_values(),
            MaskReads::All => self.of_texts(),
        }
    }

    fn of_values(&self) -> Masks {
        match &self.values {
            Some(values) => Masks::none().and_values(values),
            None => Masks::everything(),
        }
    }
}

impl Inner {
    /// The masks of a task, finished or not.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn masks_of(&self, task: &Task) -> Result<TaskMasks, StoreError> {
        if let Some(live) = self.live(task.id) {
            return Ok(live.masks.clone());
        }
        let (policies, tenant) = (&self.settings.masks, &task.owner.tenant);
        if task.spec.secret_env.is_empty() {
            return Ok(TaskMasks::new(policies, tenant, []));
        }
        match self.store.secrets(task.id).await?.values {
            Some(sealed) => match self.settings.vault.open_values(task.id, &sealed) {
                Ok(values) => Ok(TaskMasks::new(policies, tenant, &values)),
                Err(error) => {
                    tracing::error!(task = %task.id, %error, "the secrets of a task cannot be decrypted: its texts and output are hidden");
                    Ok(TaskMasks::of_everything(policies, tenant))
                }
            },
            // By policy, the values were removed with the end of the task.
            None if task.status().is_terminal() => Ok(TaskMasks::new(policies, tenant, [])),
            None => Ok(TaskMasks::of_everything(policies, tenant)),
        }
    }

    /// What is hidden in output of a finished task that is to be stored. None when the values that must be hidden are not stored any more: then
    /// no output of it may be stored either.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn masks_of_retained(&self, task: &Task) -> Result<Option<Masks>, StoreError> {
        let known = task.spec.secret_env.is_empty() || self.store.secrets(task.id).await?.values.is_some();
        Ok(if known { Some(self.masks_of(task).await?.of_texts()) } else { None })
    }

    /// The masks of what is found out about a task long after its end. If its values are not stored any more, everything is hidden.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn masks_of_late(&self, task: &Task) -> Result<TaskMasks, StoreError> {
        match self.masks_of_retained(task).await? {
            Some(_) => self.masks_of(task).await,
            None => Ok(TaskMasks::of_everything(&self.settings.masks, &task.owner.tenant)),
        }
    }

    /// The masks of a task that is taken over. If the store fails, everything is hidden.
    pub(super) async fn masks_of_known(&self, task: &Task) -> TaskMasks {
        match self.masks_of(task).await {
            Ok(masks) => masks,
            Err(error) => {
                tracing::error!(task = %task.id, error = &error as &dyn std::error::Error, "the secrets of a task cannot be read");
                TaskMasks::of_everything(&self.settings.masks, &task.owner.tenant)
            }
        }
    }

    /// The specification that the bridge launches, with everything that the record does not show. It must not be kept or printed.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when the store does not answer, [`RuntimeError::Refused`] when the secrets cannot be decrypted: the
    /// command is never launched without them.
    pub(super) async fn revealed(&self, task: &Task) -> Result<Arc<TaskSpec>, RuntimeError> {
        if !task.spec.has_secrets() {
            return Ok(Arc::clone(&task.spec));
        }
        let sealed = self.store.secrets(task.id).await.map_err(|error| RuntimeError::Unavailable {
            detail: format!("the secrets of the command cannot be read: {error}"),
        })?;
        let refused = |why: &dyn std::fmt::Display| RuntimeError::Refused {
            detail: format!("the command is not run without its secrets, and {why}"),
        };
        let Some(sealed) = sealed.launch else { return Err(refused(&"they are not stored any more")) };
        let opened = self.settings.vault.open_launch(task.id, &sealed);
        let hidden = opened.map_err(|error: VaultError| refused(&error))?;
        Ok(Arc::new(hidden.reveal(&task.spec)))
    }
}

impl From<VaultError> for EngineError {
    fn from(error: VaultError) -> Self {
        Self::Secrets(error)
    }
}
