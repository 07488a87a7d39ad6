//! Tasks: created once per request, changed only from their newest revision, and never after a terminal state but for one late outcome.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{BotFilter, Caps, Created, StoreError, TaskQuery};
use errand_task::{Event, Incarnation, NotificationKind, Outcome, ProcessIdentity, Program, Status, Task};
use futures_util::future::join_all;

use super::Place;
use crate::conformance::fixtures::{
    HOUR, NO_CAPS, all_notifications, all_tasks, at, bot, create, exited, ids, notice, owner, remove, requested, scope,
    task, tenant,
};

pub async fn a_task_reads_back_as_created(place: &impl Place) {
    let store = place.open().await;
    let mut sent = requested(&owner("a", "bot", "s"), "r1");
    Arc::make_mut(&mut sent.spec).env = BTreeMap::from([("KEY".to_owned(), "'\"\\ é\n".to_owned())]);
    let made = create(&*store, sent.clone()).await;
    assert_eq!(made, sent);
    assert_eq!(store.task(&tenant("a"), sent.id).await.unwrap(), Some(sent.clone()));
    assert_eq!(store.task_by_request(&tenant("a"), &bot("bot"), "r1").await.unwrap(), Some(sent));
    assert_eq!(store.task_by_request(&tenant("a"), &bot("bot"), "r2").await.unwrap(), None);
}

pub async fn unpolled_reader_blocks_no_other(place: &impl Place) {
    let store = place.open().await;
    let made = create(&*store, task(&owner("a", "bot", "s"))).await;
    let whose = tenant("a");
    let read = || store.task(&whose, made.id);
    let mut left: Vec<_> = (0..100).map(|_| Box::pin(read())).collect();
    for reading in &mut left {
        let _ = futures_util::poll!(reading);
    }
    let another = tokio::time::timeout(Duration::from_secs(30), read()).await.expect("another reads");
    assert_eq!(another.unwrap(), Some(made));
}

pub async fn repeated_request_id_returns_the_same_task(place: &impl Place) {
    let store = place.open().await;
    let first = create(&*store, requested(&owner("a", "bot", "s"), "r")).await;
    // Even when the bot has reached its cap.
    let none = Caps { per_bot: 0, per_tenant: 0, ..NO_CAPS };
    let again = store.create_task(requested(&owner("a", "bot", "other"), "r"), none).await.unwrap();
    assert_eq!(again, Created::Existing(first.clone()));
    assert_eq!(ids(&store.tasks(all_tasks("a")).await.unwrap()), [first.id]);
    create(&*store, requested(&owner("a", "bot2", "s"), "r")).await;
    create(&*store, requested(&owner("b", "bot", "s"), "r")).await;
}

pub async fn concurrent_creates_of_one_request_make_one_task(place: &impl Place) {
    let store = place.open().await;
    let creates = (0..20).map(|_| store.create_task(requested(&owner("a", "bot", "s"), "r"), NO_CAPS));
    let results: Vec<Created> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    let made: Vec<&Task> =
        results.iter().filter_map(|result| if let Created::New(task) = result { Some(task) } else { None }).collect();
    assert_eq!(made.len(), 1);
    let same = |result: &Created| matches!(result, Created::New(task) | Created::Existing(task) if task == made[0]);
    assert!(results.iter().all(same));
}

pub async fn a_bot_cap_holds_under_concurrent_creates(place: &impl Place) {
    let store = place.open().await;
    let caps = Caps { per_bot: 7, per_tenant: 100, ..NO_CAPS };
    let creates = (0..50).map(|_| store.create_task(task(&owner("a", "bot", "s")), caps));
    let results = join_all(creates).await;
    assert_eq!(results.iter().filter(|result| matches!(result, Ok(Created::New(_)))).count(), 7);
    let full = |result: &&_| matches!(result, Err(StoreError::TooManyForBot { running: 7, limit: 7 }));
    assert_eq!(results.iter().filter(full).count(), 43);
    assert_eq!(store.tasks(all_tasks("a")).await.unwrap().len(), 7);
    // Each bot has a cap of its own.
    store.create_task(task(&owner("a", "bot2", "s")), caps).await.unwrap();
}

pub async fn a_tenant_cap_holds_under_concurrent_creates(place: &impl Place) {
    let store = place.open().await;
    let caps = Caps { per_bot: 100, per_tenant: 5, ..NO_CAPS };
    let owners: Vec<_> = (0..50).map(|number| owner("a", &format!("bot{}", number % 10), "s")).collect();
    let results = join_all(owners.iter().map(|owner| store.create_task(task(owner), caps))).await;
    assert_eq!(results.iter().filter(|result| matches!(result, Ok(Created::New(_)))).count(), 5);
    let full = |result: &&_| matches!(result, Err(StoreError::TooManyForTenant { running: 5, limit: 5 }));
    assert_eq!(results.iter().filter(full).count(), 45);
    store.create_task(task(&owner("b", "bot0", "s")), caps).await.unwrap();
}

pub async fn finished_tasks_do_not_count_against_caps(place: &impl Place) {
    let store = place.open().await;
    let caps = Caps { per_bot: 1, per_tenant: 1, ..NO_CAPS };
    let first = create(&*store, task(&owner("a", "bot", "s"))).await;
    assert!(store.create_task(task(&owner("a", "bot", "s")), caps).await.is_err());
    store.update_task(exited(first, 0, at(1)), None).await.unwrap();
    store.create_task(task(&owner("a", "bot", "s")), caps).await.unwrap();
}

pub async fn an_update_from_an_older_revision_conflicts(place: &impl Place) {
    let store = place.open().await;
    let old = create(&*store, task(&owner("a", "bot", "s"))).await;
    let mut changed = old.clone();
    changed.output.bytes = 1;
    let stored = store.update_task(changed, None).await.unwrap();
    assert_eq!(stored.revision, old.revision + 1);
    let late = exited(old, 1, at(1));
    assert!(matches!(store.update_task(late, None).await, Err(StoreError::Conflict)));
    assert_eq!(store.task(&tenant("a"), stored.id).await.unwrap(), Some(stored));
}

pub async fn only_one_of_concurrent_updates_succeeds(place: &impl Place) {
    let store = place.open().await;
    let base = create(&*store, task(&owner("a", "bot", "s"))).await;
    let updates = (0..20).map(|code| store.update_task(exited(base.clone(), code, at(1)), None));
    let results = join_all(updates).await;
    let won: Vec<&Task> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(store.task(&tenant("a"), base.id).await.unwrap().as_ref(), Some(won[0]));
}

pub async fn update_of_an_unknown_task_conflicts(place: &impl Place) {
    let store = place.open().await;
    let unknown = task(&owner("a", "bot", "s"));
    assert!(matches!(store.update_task(unknown, None).await, Err(StoreError::Conflict)));
    let known = create(&*store, task(&owner("a", "bot", "s"))).await;
    let foreign = Task { owner: owner("b", "bot", "s"), ..known };
    assert!(matches!(store.update_task(foreign, None).await, Err(StoreError::Conflict)));
}

pub async fn a_terminal_state_never_changes(place: &impl Place) {
    let store = place.open().await;
    let running = create(&*store, task(&owner("a", "bot", "s"))).await;
    let finished = store.update_task(exited(running.clone(), 0, at(1)), None).await.unwrap();
    let back = Task { state: running.state.clone(), ..finished.clone() };
    let other = Task { revision: finished.revision, ..exited(running, 1, at(1)) };
    for wrong in [back, other] {
        let told = notice(NotificationKind::Completed, &wrong);
        assert!(matches!(store.update_task(wrong, Some(told)).await, Err(StoreError::Conflict)));
    }
    assert_eq!(store.task(&tenant("a"), finished.id).await.unwrap(), Some(finished.clone()));
    assert!(store.notifications(all_notifications(&scope(&finished.owner))).await.unwrap().is_empty());
}

pub async fn finished_task_takes_only_one_late_outcome(place: &impl Place) {
    let store = place.open().await;
    let queued = create(&*store, task(&owner("a", "bot", "s"))).await;
    let finished = store.update_task(exited(queued, 0, at(1)), None).await.unwrap();
    let mut more_output = finished.clone();
    more_output.output.bytes = 5;
    let late = exited(finished.clone(), 3, at(2));
    let late_and_more = Task { output: more_output.output.clone(), ..late.clone() };
    for wrong in [finished.clone(), more_output, late_and_more] {
        assert!(matches!(store.update_task(wrong, None).await, Err(StoreError::Conflict)));
    }
    let stored = store.update_task(late, None).await.unwrap();
    assert_eq!(stored.late_outcome, Some(Outcome::Exited { code: 3 }));
    assert_eq!(stored.state, finished.state);
    let second = Task { late_outcome: Some(Outcome::Exited { code: 4 }), ..stored.clone() };
    assert!(matches!(store.update_task(second, None).await, Err(StoreError::Conflict)));
    assert_eq!(store.task(&tenant("a"), stored.id).await.unwrap(), Some(stored));
}

pub async fn tasks_are_listed_newest_first_in_pages(place: &impl Place) {
    let store = place.open().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(create(&*store, task(&owner("a", "bot", "s"))).await.id);
    }
    made.reverse();
    let mut listed = Vec::new();
    loop {
        let query = TaskQuery { before: listed.last().copied(), limit: 2, ..all_tasks("a") };
        let page = ids(&store.tasks(query).await.unwrap());
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        listed.extend(page);
    }
    assert_eq!(listed, made);
}

pub async fn task_pages_are_limited_by_size(place: &impl Place) {
    let store = place.open().await;
    let whose = owner("a", "bot", "s");
    let mut made = Vec::new();
    for _ in 0..10 {
        let mut task = task(&whose);
        Arc::make_mut(&mut task.spec).program = Program::Argv(vec!["x".repeat(1 << 20)]);
        made.push(create(&*store, task).await.id);
    }
    made.reverse();
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = store.task_page(TaskQuery { before, ..all_tasks("a") }).await.unwrap();
        assert!(page.tasks.len() <= 3, "{} tasks of a mebibyte each", page.tasks.len());
        seen.extend(ids(&page.tasks));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, made);
}

pub async fn tasks_are_listed_by_status_session_and_bot(place: &impl Place) {
    let store = place.open().await;
    let queued = create(&*store, task(&owner("a", "bot", "s1"))).await.id;
    let succeeded = create(&*store, task(&owner("a", "bot", "s2"))).await;
    let succeeded = store.update_task(exited(succeeded, 0, at(1)), None).await.unwrap().id;
    let failed = create(&*store, task(&owner("a", "bot2", "s1"))).await;
    let failed = store.update_task(exited(failed, 1, at(1)), None).await.unwrap().id;
    let running = create(&*store, running(task(&owner("a", "bot2", "s2")))).await.id;

    let with = |statuses: &[Status]| TaskQuery { statuses: statuses.to_vec(), ..all_tasks("a") };
    let listed = async |query| ids(&store.tasks(query).await.unwrap());
    assert_eq!(listed(all_tasks("a")).await, [running, failed, succeeded, queued]);
    assert_eq!(listed(with(&[Status::Queued, Status::Running])).await, [running, queued]);
    assert_eq!(listed(with(&[Status::Queued, Status::Failed])).await, [failed, queued]);
    assert_eq!(listed(with(&[Status::Lost])).await, []);
    let of_session = TaskQuery { session: Some(owner("a", "x", "s1").session), ..all_tasks("a") };
    assert_eq!(listed(of_session.clone()).await, [failed, queued]);
    let of_bot = TaskQuery { bots: BotFilter::One(bot("bot2")), ..all_tasks("a") };
    assert_eq!(listed(of_bot).await, [running, failed]);
    assert_eq!(listed(TaskQuery { bots: BotFilter::One(bot("bot")), ..of_session }).await, [queued]);
}

fn running(mut task: Task) -> Task {
    task.apply(Event::LaunchBegan { incarnation: Incarnation("one".to_owned()) });
    task.apply(Event::Started { process: ProcessIdentity { pid: 7, start_ticks: 70 }, at: at(1) });
    assert_eq!(task.status(), Status::Running);
    task
}

pub async fn bot_patterns_match_names_and_prefixes(place: &impl Place) {
    let store = place.open().await;
    let mut made = BTreeMap::new();
    for name in ["red_1", "redx1", "Red_1", "red_", "blue", "blue:2"] {
        made.insert(name, create(&*store, task(&owner("a", name, "s"))).await.id);
    }
    let expect = async |patterns: &[&str], names: &[&str]| {
        let bots = BotFilter::Matching(patterns.iter().map(|pattern| (*pattern).to_owned()).collect());
        let mut listed = ids(&store.tasks(TaskQuery { bots, ..all_tasks("a") }).await.unwrap());
        let mut expected: Vec<_> = names.iter().map(|name| made[name]).collect();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected, "{patterns:?}");
    };
    expect(&["red_*"], &["red_1", "red_"]).await;
    expect(&["blue"], &["blue"]).await;
    expect(&["blue*", "red_1"], &["blue", "blue:2", "red_1"]).await;
    expect(&["*"], &["red_1", "redx1", "Red_1", "red_", "blue", "blue:2"]).await;
    expect(&["red%", "%*", "r*d_1", "?lue", "' OR 1=1 --"], &[]).await;
    expect(&[], &[]).await;
}

pub async fn labels_match_with_any_characters_in_keys(place: &impl Place) {
    let store = place.open().await;
    let odd_keys = ["plain", "a.b", "a\"b", "a'b", "a\\b", "a[0]", "$", "", "é\n", "a b"];
    let mut made = Vec::new();
    for key in odd_keys {
        let mut labelled = task(&owner("a", "bot", "s"));
        Arc::make_mut(&mut labelled.spec).labels =
            BTreeMap::from([(key.to_owned(), format!("<{key}>")), ("all".to_owned(), "1".to_owned())]);
        made.push((key, create(&*store, labelled).await.id));
    }
    let listed = async |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ids(&store.tasks(TaskQuery { labels, ..all_tasks("a") }).await.unwrap())
    };
    for (key, id) in &made {
        assert_eq!(listed(&[(key, &format!("<{key}>")), ("all", "1")]).await, [*id], "{key:?}");
    }
    assert_eq!(listed(&[("all", "1")]).await.len(), odd_keys.len());
    assert_eq!(listed(&[("all", "2")]).await, []);
    assert_eq!(listed(&[("plain", "<plain>"), ("a.b", "<a.b>")]).await, []);
}

pub async fn tenants_do_not_see_each_others_tasks(place: &impl Place) {
    let store = place.open().await;
    let of_a = create(&*store, requested(&owner("a", "bot", "s"), "r")).await;
    assert_eq!(store.task(&tenant("b"), of_a.id).await.unwrap(), None);
    assert_eq!(store.task_by_request(&tenant("b"), &bot("bot"), "r").await.unwrap(), None);
    assert_eq!(store.tasks(all_tasks("b")).await.unwrap(), []);
}

pub async fn unfinished_tasks_are_listed_oldest_first(place: &impl Place) {
    let store = place.open().await;
    let first = create(&*store, task(&owner("b", "bot", "s"))).await;
    let second = create(&*store, task(&owner("a", "bot", "s"))).await;
    let third = create(&*store, task(&owner("a", "bot", "s"))).await;
    store.update_task(exited(second, 0, at(1)), None).await.unwrap();
    assert_eq!(store.unfinished_tasks().await.unwrap(), [first, third]);
}

/// A command of 1 MiB, changed and finished.
pub async fn a_large_task_reads_back_after_changes(place: &impl Place) {
    let store = place.open().await;
    let mut large = requested(&owner("a", "bot", "s"), "r");
    Arc::make_mut(&mut large.spec).program = Program::Argv(vec!["x".repeat(1 << 20)]);
    Arc::make_mut(&mut large.spec).labels = BTreeMap::from([("size".to_owned(), "large".to_owned())]);
    let made = create(&*store, large).await;
    assert_eq!(store.update_task(running(made.clone()), None).await.unwrap().revision, made.revision + 1);
    let stored = store.task(&tenant("a"), made.id).await.unwrap().unwrap();
    assert_eq!((stored.status(), &stored.spec), (Status::Running, &made.spec));
    assert_eq!(store.unfinished_tasks().await.unwrap(), std::slice::from_ref(&stored));
    let finished = store.update_task(exited(stored, 0, at(2)), None).await.unwrap();
    let late = store.update_task(exited(finished, 3, at(3)), None).await.unwrap();
    let labelled = TaskQuery { labels: late.spec.labels.clone(), ..all_tasks("a") };
    assert_eq!(store.tasks(labelled).await.unwrap(), std::slice::from_ref(&late));
    assert_eq!(store.task_by_request(&tenant("a"), &bot("bot"), "r").await.unwrap(), Some(late));
    place.pass(HOUR);
    assert_eq!(remove(&*store, HOUR / 2, 9).await, 1);
    assert_eq!(store.task(&tenant("a"), made.id).await.unwrap(), None);
}

pub async fn update_never_changes_the_accepted_part(place: &impl Place) {
    let store = place.open().await;
    let made = create(&*store, task(&owner("a", "bot", "s"))).await;
    let mut changed = running(made.clone());
    Arc::make_mut(&mut changed.spec).description = "another".to_owned();
    changed.output_file = "/elsewhere".to_owned();
    store.update_task(changed.clone(), None).await.unwrap();
    let stored = store.task(&tenant("a"), made.id).await.unwrap().unwrap();
    assert_eq!((&stored.spec, &stored.output_file), (&made.spec, &made.output_file));
    assert_eq!(stored.state, changed.state);
}

pub async fn tasks_that_finished_long_ago_are_removed(place: &impl Place) {
    let store = place.open().await;
    let unfinished = create(&*store, task(&owner("a", "bot", "s"))).await;
    let mut finished = Vec::new();
    for _ in 0..4 {
        let task = create(&*store, task(&owner("a", "bot", "s"))).await;
        // The age is measured by the store's clock, not by the times in the record.
        finished.push(store.update_task(exited(task, 0, at(1)), None).await.unwrap());
        place.pass(HOUR);
    }
    let left = async || ids(&store.tasks(all_tasks("a")).await.unwrap());
    assert_eq!(remove(&*store, HOUR * 5, 10).await, 0);
    assert_eq!(remove(&*store, HOUR * 3 / 2, 2).await, 2);
    assert_eq!(left().await, [finished[3].id, finished[2].id, unfinished.id], "the oldest go first");
    assert_eq!(remove(&*store, HOUR * 3 / 2, 2).await, 1);
    assert_eq!(remove(&*store, HOUR * 3 / 2, 2).await, 0);
    assert_eq!(left().await, [finished[3].id, unfinished.id]);
}
