//! Retains output: so much of the beginning and the end of a finished task's output that it can be read without the sandbox.
//!
//! Most output fits into memory: it is stored with the task's end. Longer output is read from the sandbox soon after the end, by every sweep,
//! and before the sandbox is stopped or deleted; until then, what memory held is retained. A sandbox is read by one reader at a time, each output
//! for a bounded time, and a tenant has a share of the readers.
//!
//! What is retained holds no secrets: it is masked before it is stored, as texts are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::timeout};

use crate::{
    EngineError, Inner, Settings, masking::mask_retained, output::LiveOutput, permits::Pool, sandbox::Sandbox,
};
use errand_bridge::{OutputPiece, Piece, ReadError};
use errand_masks::Masks;
use errand_runtime::RuntimeError;
use errand_store::End;
use errand_task::{BotId, Owner, RetainedOutput, Run, SandboxId, Task, TenantId};

/// How many sandboxes are read at the same time, and how many of them may belong to one tenant.
const READERS: usize = 8;
const READERS_OF_TENANT: usize = 2;
/// How long reading one output may take, and all outputs of a sandbox together.
const OUTPUT_LIMIT: Duration = Duration::from_secs(10);
const SANDBOX_LIMIT: Duration = Duration::from_secs(60);
/// How long the end of a sandbox may wait for its outputs.
const END_LIMIT: Duration = Duration::from_secs(20);
/// The pause after each output that is read in the background: the database is shared, and a sandbox must not keep it busy.
const PACE: Duration = Duration::from_millis(50);
/// How many tasks are listed at a time.
const BATCH: u32 = 16;
/// The most changes between streams that are read: more than are retained.
const RUNS: usize = 16 * 1024;

/// Who reads outputs.
pub(crate) struct Readers {
    /// The sandboxes that are being read, and whether further tasks have ended in them since.
    busy: Mutex<HashMap<SandboxId, bool>>,
    tenants: Pool<TenantId>,
    all: Semaphore,
}

impl Default for Readers {
    fn default() -> Self {
        let (tenants, all) = (Pool::new(READERS_OF_TENANT), Semaphore::new(READERS));
        Self { busy: Mutex::default(), tenants, all }
    }
}

impl Readers {
    fn busy(&self) -> MutexGuard<'_, HashMap<SandboxId, bool>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a sandbox has to be read. True if nobody reads it yet: the caller does, and goes on until [`Readers::is_done`].
    fn claim(&self, sandbox: SandboxId) -> bool {
        self.busy().insert(sandbox, true).is_none()
    }

    /// Whether nothing was noted since the last call.
    fn is_done(&self, sandbox: SandboxId) -> bool {
        let mut busy = self.busy();
        let noted = busy.get_mut(&sandbox).is_some_and(std::mem::take);
        if !noted {
            busy.remove(&sandbox);
        }
        !noted
    }
}

/// What is stored with the end of a task. `retain`: the output in memory too.
pub(crate) fn end(settings: &Settings, task: &Task, output: &LiveOutput, retain: bool) -> End {
    let (limit, stored_bytes) = (settings.retained_output, settings.caps.stored_bytes);
    if limit == 0 || task.state.started_at().is_none() || task.output.bytes == 0 {
        return End { stored_bytes, ..End::default() };
    }
    let held = output.held(task.output.bytes).bounded(limit);
    let more = is_partial(&held, limit);
    End { output: Some(held).filter(|held| retain && !held.bytes.is_empty()), more: more || !retain, stored_bytes }
}

/// Whether the log may hold more of an output that is worth retaining.
fn is_partial(held: &RetainedOutput, limit: usize) -> bool {
    let begins = held.runs.first().is_some_and(|run| run.offset == 0);
    (held.bytes.len() as u64) < held.total && (held.bytes.len() < limit || !begins)
}

/// Retains the output of a finished task in the background, if that was not stored with its end.
pub(crate) fn request(inner: &Arc<Inner>, task: &Task) {
    let limit = inner.settings.retained_output;
    let retained = task.retained.as_ref();
    let whole = retained.is_some_and(|retained| retained.gaps.is_empty());
    if limit == 0 || task.output.bytes == 0 || task.state.started_at().is_none() || whole {
        return;
    }
    let readers = &inner.retention.readers;
    if !readers.claim(task.sandbox) {
        return;
    }
    let (inner, owner, id) = (Arc::clone(inner), task.owner.clone(), task.sandbox);
    inner.clone().tracker.spawn(async move {
        inner.keep_running("the retention of output", || retain_noted(&inner, &owner, id)).await;
    });
}

/// Reads a claimed sandbox until nothing was noted any more, or the server ends.
async fn retain_noted(inner: &Inner, owner: &Owner, id: SandboxId) {
    let readers = &inner.retention.readers;
    while !readers.is_done(id) {
        let reading = async {
            // The tenant's own share comes first: a reader that waits for it takes no place from other tenants.
            let _of_tenant = readers.tenants.acquire(&owner.tenant).await;
            let _any = readers.all.acquire().await;
            timeout(SANDBOX_LIMIT, take_of_bot(inner, &owner.tenant, &owner.bot, id)).await
        };
        tokio::select! {
            () = inner.leave.cancelled() => return,
            taken = reading => match taken {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, sandbox = %id, "outputs could not be retained"),
                Err(_) => tracing::warn!(sandbox = %id, "outputs could not be retained in time"),
            },
        }
    }
}

/// Retains what is not retained yet before a sandbox is stopped or deleted. Never fails: what cannot be read in time is left out.
pub(crate) async fn before_end(inner: &Inner, tenant: &TenantId, bot: &BotId) {
    let taking = async {
        match inner.store.sandbox(tenant, bot).await? {
            Some(record) => take(inner, &inner.sandboxes.handle(&record)?, record.id, Duration::ZERO).await,
            None => Ok(()),
        }
    };
    match timeout(END_LIMIT, taking).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, %bot, "some outputs of a sandbox that ends are not retained"),
        Err(_) => tracing::warn!(%bot, "some outputs of a sandbox that ends could not be retained in time"),
    }
}

async fn take_of_bot(inner: &Inner, tenant: &TenantId, bot: &BotId, id: SandboxId) -> Result<(), EngineError> {
    match inner.store.sandbox(tenant, bot).await? {
        Some(record) if record.id == id => take(inner, &inner.sandboxes.handle(&record)?, id, PACE).await,
        Some(_) | None => Ok(()),
    }
}

/// Retains the outputs of a sandbox, for a sweep, which bounds the time.
///
/// # Errors
/// When the sandbox cannot be read, or the store fails.
pub(super) async fn sweep(inner: &Inner, sandbox: &Sandbox, id: SandboxId) -> Result<(), EngineError> {
    take(inner, sandbox, id, PACE).await
}

/// Reads and retains the outputs of a sandbox's finished tasks that are not retained yet, with a pause after each.
async fn take(inner: &Inner, sandbox: &Sandbox, id: SandboxId, pace: Duration) -> Result<(), EngineError> {
    let (limit, stored_bytes) = (inner.settings.retained_output, inner.settings.caps.stored_bytes);
    if limit == 0 {
        return Ok(());
    }
    loop {
        let tasks = inner.store.unretained_tasks(id, BATCH).await?;
        if tasks.is_empty() {
            return Ok(());
        }
        for task in tasks {
            let masks = inner.masks_of_retained(&task).await?;
            let reading = async {
                match masks {
                    Some(masks) => read(sandbox, &task, limit, masks).await.map(Some),
                    None => Ok(None),
                }
            };
            let output = match timeout(OUTPUT_LIMIT, reading).await {
                Ok(Ok(output)) => output.filter(|output| !output.bytes.is_empty()),
                Ok(Err(ReadError::Gone | ReadError::Runtime(RuntimeError::Refused { .. }))) => None,
                Ok(Err(error)) => return Err(error.into()),
                // It is not tried again: it would hold up the others again.
                Err(_) => {
                    tracing::warn!(task = %task.id, "an output did not come in time and is not retained");
                    None
                }
            };
            inner.store.retain_output(&task.owner.tenant, task.id, output, stored_bytes).await?;
            if !pace.is_zero() {
                tokio::time::sleep(pace).await;
            }
        }
    }
}

/// The beginning and the end of a task's log, masked.
async fn read(sandbox: &Sandbox, task: &Task, limit: usize, masks: Masks) -> Result<RetainedOutput, ReadError> {
    let retained = limit;
    // What is left out decides what of the rest belongs to a secret.
    let limit = retained + 2 * masks.margin();
    let bridge = &sandbox.bridge;
    let mut reader = bridge.read(task.id, Piece::From { offset: 0, limit: limit as u64 }).await?;
    let whole = reader.size <= limit as u64;
    let mut output = RetainedOutput::of(reader.size);
    let most = if whole { limit } else { limit / 2 };
    while let Some(piece) = reader.next().await {
        if !push(&mut output, &piece?, most) {
            break;
        }
    }
    if !whole {
        let tail = (limit - output.bytes.len()) as u64;
        let mut reader = bridge.read(task.id, Piece::Tail { limit: tail }).await?;
        output.total = output.total.max(reader.size);
        while let Some(piece) = reader.next().await {
            if !push(&mut output, &piece?, limit) {
                break;
            }
        }
    }
    mask_retained(&mut output, &masks);
    Ok(output.bounded(retained))
}

/// Appends a piece up to so many bytes in all. False when there is no room for more.
fn push(output: &mut RetainedOutput, piece: &OutputPiece, most: usize) -> bool {
    let known = output.runs.last().map_or(0, Run::end);
    let old = usize::try_from(known.saturating_sub(piece.offset)).unwrap_or(usize::MAX).min(piece.bytes.len());
    let room = most.saturating_sub(output.bytes.len()).saturating_add(old);
    output.push(piece.offset, piece.stream, &piece.bytes[..piece.bytes.len().min(room)]);
    output.bytes.len() < most && output.runs.len() < RUNS
}

#[cfg(test)]
mod tests {
    use super::*;
    use errand_task::Stream;

    #[test]
    fn task_that_ends_meanwhile_is_read_too() {
        let (readers, sandbox) = (Readers::default(), SandboxId::new());
        assert!(readers.claim(sandbox) && !readers.claim(sandbox));
        assert!(!readers.is_done(sandbox));
        assert!(!readers.claim(sandbox));
        assert!(!readers.is_done(sandbox) && readers.is_done(sandbox));
        assert!(readers.claim(sandbox));
        assert_eq!(readers.busy().len(), 1);
    }

    #[test]
    fn pieces_fill_the_limit_and_no_more() {
        let mut output = RetainedOutput::of(100);
        assert!(push(&mut output, &OutputPiece::both(0, "abc"), 5));
        assert!(!push(&mut output, &OutputPiece::both(1, "bcdefg"), 5));
        assert_eq!(output.bytes, b"abcde");
        let tail = OutputPiece { offset: 90, stream: Stream::Stderr, bytes: "0123456789".into() };
        assert!(!push(&mut output, &tail, 15));
        assert_eq!(output.summary().gaps.len(), 1);
    }

    #[test]
    fn partial_output_is_read_again() {
        let held = |offset, text: &str| {
            let mut held = RetainedOutput::of(10);
            held.push(offset, Stream::Both, text.as_bytes());
            held
        };
        assert!(!is_partial(&held(0, "0123456789"), 20));
        assert!(is_partial(&held(5, "56789"), 20) && is_partial(&held(5, "56789"), 5));
        assert!(!is_partial(&held(0, "01234"), 5), "no more is retained");
    }
}
