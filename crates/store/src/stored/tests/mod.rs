//! Every released form decodes to what it meant, and today's form is the committed one, byte for byte.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod samples;

use errand_task::{NewNotification, Program, ResourceLimits, Stdin, Task, TaskSpec};

use super::*;
use samples::{
    newer_notifications, newer_tasks, notifications, notifications_by_policy, queue_tasks, sandbox, tasks,
    tasks_with_policies,
};

/// The records of [`samples`] as version 0.1.0 wrote them, one a line.
const RELEASED_TASKS: &str = include_str!("../golden/0.1.0/tasks.jsonl");
const RELEASED_NOTIFICATIONS: &str = include_str!("../golden/0.1.0/notifications.jsonl");
const RELEASED_SANDBOX: &str = include_str!("../golden/0.1.0/sandbox.json");

/// The same as this version writes them. For each task there are two lines: what was accepted, and the progress.
const TASKS: &str = include_str!("../golden/current/tasks.jsonl");
const QUEUE_TASKS: &str = include_str!("../golden/current/queue_tasks.jsonl");
const NOTIFICATIONS: &str = include_str!("../golden/current/notifications.jsonl");
const SANDBOX: &str = include_str!("../golden/current/sandbox.json");

/// All tasks of [`samples`].
fn all_tasks() -> Vec<Task> {
    [tasks(), tasks_with_policies(), newer_tasks()].concat()
}

/// All notifications of [`samples`].
fn all_notifications() -> Vec<NewNotification> {
    [notifications(), notifications_by_policy(), newer_notifications()].concat()
}

fn decode_whole(text: &str) -> Task {
    decode_task(text.as_bytes(), None, 0).unwrap()
}

#[test]
fn released_records_decode_to_the_samples() {
    let decoded: Vec<Task> = RELEASED_TASKS.lines().map(decode_whole).collect();
    assert_eq!(decoded, tasks());
    let decoded = RELEASED_NOTIFICATIONS.lines().map(|line| decode_notification(line.as_bytes()).unwrap());
    assert_eq!(decoded.collect::<Vec<_>>(), notifications());
    assert_eq!(decode_sandbox(RELEASED_SANDBOX.as_bytes()).unwrap(), sandbox());
}

#[test]
fn samples_encode_to_the_committed_bytes() {
    for (tasks, committed) in [(all_tasks(), TASKS), (queue_tasks(), QUEUE_TASKS)] {
        let encoded = tasks.iter().fold(String::new(), |text, task| {
            format!("{text}{}\n{}\n", encode_accepted(task).unwrap(), encode_progress(task).unwrap())
        });
        assert_eq!(encoded, committed);
    }
    let encoded: Vec<String> = all_notifications().iter().map(|told| encode_notification(told).unwrap()).collect();
    assert_eq!(encoded, NOTIFICATIONS.lines().collect::<Vec<_>>());
    assert_eq!(encode_sandbox(&sandbox()).unwrap(), SANDBOX.trim_end());
}

#[test]
fn committed_bytes_decode_to_the_samples() {
    for (tasks, committed) in [(all_tasks(), TASKS), (queue_tasks(), QUEUE_TASKS)] {
        let lines: Vec<&str> = committed.lines().collect();
        let decoded = lines.chunks(2).map(|pair| decode_task(pair[0].as_bytes(), Some(pair[1].as_bytes()), 0).unwrap());
        assert_eq!(decoded.collect::<Vec<_>>(), tasks);
    }
    let decoded = NOTIFICATIONS.lines().map(|line| decode_notification(line.as_bytes()).unwrap());
    assert_eq!(decoded.collect::<Vec<_>>(), all_notifications());
    assert_eq!(decode_sandbox(SANDBOX.as_bytes()).unwrap(), sandbox());
}

#[test]
fn missing_fields_take_their_defaults() {
    let mut old: serde_json::Value = serde_json::from_str(RELEASED_TASKS.lines().next().unwrap()).unwrap();
    let spec = r#"{"program":{"argv":["ls"]},"workdir":null,"env":{},"description":"","timeout":{"secs":5,"nanos":0},
        "labels":{},"request_id":null}"#;
    old["spec"] = serde_json::from_str(spec).unwrap();
    for field in ["usage", "stop_requested"] {
        assert!(old.as_object_mut().unwrap().remove(field).is_some());
    }
    let task = decode_whole(&old.to_string());
    assert_eq!(task.spec.program, Program::Argv(vec!["ls".to_owned()]));
    assert_eq!((task.spec.stdin, task.spec.limits), (Stdin::Closed, ResourceLimits::default()));
    assert_eq!(task.spec.output_limit, TaskSpec::new(task.spec.program.clone(), task.spec.timeout).output_limit);
    assert_eq!((task.usage, task.stop_requested), (None, None));
}

#[test]
fn names_of_secrets_read_back() {
    let mut task = tasks().remove(0);
    let spec = std::sync::Arc::make_mut(&mut task.spec);
    (spec.secret_env, spec.concealed) = (vec!["KEY".to_owned()], true);
    let (accepted, progress) = (encode_accepted(&task).unwrap(), encode_progress(&task).unwrap());
    assert!(accepted.contains(r#""secret_env":["KEY"],"concealed":true"#), "{accepted}");
    assert_eq!(decode_task(accepted.as_bytes(), Some(progress.as_bytes()), 0).unwrap(), task);
}

#[test]
fn newer_versions_are_named_in_the_error() {
    for newer in [r#"{"version":9}"#, &TASKS.lines().next().unwrap().replace(r#""version":2"#, r#""version":9"#)] {
        let Undecodable(detail) =
            decode_task(newer.as_bytes(), TASKS.lines().nth(1).map(str::as_bytes), 0).unwrap_err();
        assert!(detail.contains("version 9"), "{detail}");
    }
}

#[test]
fn errors_quote_nothing_of_the_record() {
    let text = RELEASED_TASKS.lines().next().unwrap();
    let secrets = [r#""tenant":"a"#, r#""state":"q"#, r#""nonce":"0"#];
    for (found, secret) in secrets.iter().zip(["hunter 2", "hunter2", "hunter2"]) {
        let key = &found[..found.find(':').unwrap()];
        let spoiled = text.replacen(found, &format!("{key}:\"{secret}\",\"was\":\""), 1);
        assert_ne!(spoiled, text);
        let Undecodable(detail) = decode_task(spoiled.as_bytes(), None, 0).unwrap_err();
        assert!(!detail.contains("hunter"), "{detail}");
    }
}
