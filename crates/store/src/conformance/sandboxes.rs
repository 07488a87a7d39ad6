//! Sandboxes: one for each bot.

use crate::StoreError;
use errand_task::{SandboxId, SandboxRecord};

use super::Place;
use crate::conformance::fixtures::{bot, sandbox, tenant};

pub async fn a_bot_has_one_sandbox(place: &impl Place) {
    let store = place.open().await;
    let first = sandbox("a", "bot");
    store.put_sandbox(first.clone()).await.unwrap();
    assert!(matches!(store.put_sandbox(sandbox("a", "bot")).await, Err(StoreError::Conflict)));
    let replaced = SandboxRecord { runtime_id: "new".to_owned(), ..first.clone() };
    store.put_sandbox(replaced.clone()).await.unwrap();
    assert_eq!(store.sandbox(&tenant("a"), &bot("bot")).await.unwrap(), Some(replaced.clone()));
    // A sandbox's id stays with its bot.
    let stolen = SandboxRecord { bot: bot("thief"), ..replaced.clone() };
    assert!(matches!(store.put_sandbox(stolen).await, Err(StoreError::Conflict)));
    assert_eq!(store.sandboxes(None, None, 10).await.unwrap(), [replaced]);
    store.put_sandbox(sandbox("b", "bot")).await.unwrap();
}

pub async fn container_belongs_to_only_one_bot(place: &impl Place) {
    let store = place.open().await;
    let first = sandbox("a", "bot");
    store.put_sandbox(first.clone()).await.unwrap();
    let second = SandboxRecord { runtime_id: first.runtime_id.clone(), ..sandbox("b", "bot") };
    assert!(matches!(store.put_sandbox(second.clone()).await, Err(StoreError::Conflict)));
    store.remove_sandbox(&first.tenant, &first.bot).await.unwrap();
    store.put_sandbox(second).await.unwrap();
}

pub async fn sandboxes_are_listed_oldest_first_in_pages(place: &impl Place) {
    let store = place.open().await;
    let mut made: Vec<SandboxId> = Vec::new();
    for (tenant_name, bot_name) in [("a", "1"), ("b", "1"), ("a", "2"), ("a", "3")] {
        let sandbox = sandbox(tenant_name, bot_name);
        made.push(sandbox.id);
        store.put_sandbox(sandbox).await.unwrap();
    }
    let a = tenant("a");
    let listed = async |of, after, limit| -> Vec<SandboxId> {
        store.sandboxes(of, after, limit).await.unwrap().iter().map(|sandbox| sandbox.id).collect()
    };
    assert_eq!(listed(None, None, 10).await, made);
    assert_eq!(listed(Some(&a), None, 2).await, [made[0], made[2]]);
    assert_eq!(listed(Some(&a), Some(made[2]), 2).await, [made[3]]);
}

pub async fn removed_sandbox_is_no_longer_found(place: &impl Place) {
    let store = place.open().await;
    store.put_sandbox(sandbox("a", "bot")).await.unwrap();
    store.remove_sandbox(&tenant("b"), &bot("bot")).await.unwrap();
    assert!(store.sandbox(&tenant("a"), &bot("bot")).await.unwrap().is_some());
    store.remove_sandbox(&tenant("a"), &bot("bot")).await.unwrap();
    store.remove_sandbox(&tenant("a"), &bot("bot")).await.unwrap();
    assert_eq!(store.sandbox(&tenant("a"), &bot("bot")).await.unwrap(), None);
    store.put_sandbox(sandbox("a", "bot")).await.unwrap();
}
