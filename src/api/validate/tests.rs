#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::*;
use crate::api::auth::Caller;
use errand_engine::{Allowance, Allowances, LaunchLimits, MaskPolicies, ReadSelection, Settings, TenantRules};
use errand_proto::v1::*;
use errand_store::{BotFilter, Caps};
use errand_task as task;
use errand_task::{Program, TaskId};

fn settings() -> Settings {
    Settings {
        sandbox: task::SandboxSpec {
            image: "image".to_owned(),
            memory_bytes: 1 << 30,
            cpus: 2.0,
            pids_limit: 512,
            network_mode: "bridge".to_owned(),
            writable_root: false,
            user: None,
            env: Default::default(),
            idle_stop_after: None,
        },
        allowances: Allowances::new(Allowance {
            sandbox: task::SandboxBounds {
                memory_bytes: 16 << 30,
                cpus: 16.0,
                pids_limit: 32_768,
                images: task::Patterns::parse("image,acme/*").unwrap(),
                networks: task::Patterns::parse("bridge,none").unwrap(),
            },
            sandboxes: 10,
        }),
        caps: Caps {
            per_bot: 64,
            per_tenant: 1024,
            queued_per_bot: 1000,
            queued_per_tenant: 10_000,
            queued_bytes: 256 << 20,
            stored_tasks: 1_000_000,
            stored_bytes: 10 << 30,
        },
        default_timeout: Duration::from_secs(1800),
        max_timeout: Duration::from_secs(86_400),
        stall_after: Duration::from_secs(45),
        stall_check_interval: Duration::from_secs(5),
        stop_grace: Duration::from_secs(2),
        idle: errand_engine::IdlePolicy { stop_after: None, task_age: Duration::from_secs(86_400) },
        retention: Duration::from_secs(86_400),
        notification_retention: Duration::from_secs(86_400),
        retained_output: 1 << 20,
        launches: LaunchLimits { per_sandbox: 8, per_tenant: 32 },
        watches: Default::default(),
        masks: MaskPolicies::new(Default::default(), Default::default()),
        vault: errand_secrets::Vault::ephemeral().unwrap(),
    }
}

fn request() -> StartTaskRequest {
    StartTaskRequest {
        bot_id: "bot".to_owned(),
        session_id: "session".to_owned(),
        command: "make".to_owned(),
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn map(entries: &[(&str, &str)]) -> HashMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The fields named in a refusal.
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    status.get_details_bad_request().unwrap().field_violations.into_iter().map(|violation| violation.field).collect()
}

/// The fields that are refused when a valid request is changed in one place.
fn refused(change: impl FnOnce(&mut StartTaskRequest)) -> Vec<String> {
    let mut request = request();
    change(&mut request);
    start(request, &Caller::local(), &settings()).map_or_else(|status| fields(&status), |_| Vec::new())
}

#[test]
fn a_plain_request_takes_the_defaults() {
    let read = start(request(), &Caller::local(), &settings()).unwrap();
    assert_eq!(read.spec.timeout, Duration::from_secs(1800));
    assert_eq!(read.spec.program, Program::Shell { text: "make".to_owned(), shell: None });
    assert_eq!((read.spec.workdir, read.spec.request_id, read.sandbox), (None, None, None));
}

#[test]
fn names_are_required_and_checked() {
    assert_eq!(refused(|request| request.bot_id.clear()), ["bot_id"]);
    assert_eq!(refused(|request| request.session_id = "a b".to_owned()), ["session_id"]);
    assert_eq!(refused(|request| request.bot_id = "x".repeat(129)), ["bot_id"]);
}

#[test]
fn command_is_text_or_arguments_and_not_empty() {
    assert_eq!(refused(|request| request.command.clear()), ["command"]);
    assert_eq!(refused(|request| request.command = " \n".to_owned()), ["command"]);
    assert_eq!(refused(|request| request.argv = vec!["ls".to_owned()]), ["command"]);
    assert_eq!(refused(|request| request.command = "a\0b".to_owned()), ["command"]);
    assert_eq!(refused(|request| request.command = "x".repeat(1024 * 1024 + 1)), ["command"]);
    assert!(refused(|request| request.command = "x".repeat(1024 * 1024)).is_empty());
    let argv = |argv: &[&str]| {
        let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
        refused(|request| (request.command, request.argv) = (String::new(), argv))
    };
    assert!(argv(&["ls", ""]).is_empty());
    assert_eq!(argv(&[""]), ["argv[0]"]);
    assert_eq!(argv(&["A=b"]), ["argv[0]"]);
    assert_eq!(argv(&["ls", "a\0"]), ["argv[1]"]);
    assert_eq!(argv(&["ls", &"x".repeat(1024 * 1024)]), ["argv"]);
}

#[test]
fn invalid_policy_and_trace_context_are_refused() {
    let policy = NotifyPolicy { heartbeat_every: seconds(5), ..Default::default() };
    assert_eq!(refused(|request| request.notify = Some(policy)), ["notify.heartbeat_every"]);
    assert_eq!(refused(|request| request.traceparent = "00-x".to_owned()), ["traceparent"]);
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert!(refused(|request| request.traceparent = valid.to_owned()).is_empty());
}

#[test]
fn environment_workdir_and_shell_have_limits() {
    for name in ["_A1", "1A", "A-B", "a.b", "É x", "-u"] {
        assert!(refused(|request| request.env = map(&[(name, "x=y\n")])).is_empty(), "{name}");
    }
    for name in ["", "A=B", "A\0"] {
        assert_eq!(refused(|request| request.env = map(&[(name, "x")])), [format!("env[{name:?}]")]);
    }
    assert_eq!(refused(|request| request.env = map(&[("A", "\0")])), ["env[\"A\"]"]);
    assert_eq!(refused(|request| request.env = map(&[("A", &"x".repeat(65_536))])), ["env"]);
    let many = (0..257).map(|index| (format!("A{index}"), String::new())).collect();
    assert_eq!(refused(|request| request.env = many), ["env"]);
    assert_eq!(refused(|request| request.workdir = "src".to_owned()), ["workdir"]);
    assert_eq!(refused(|request| request.workdir = "/a\0".to_owned()), ["workdir"]);
    assert_eq!(refused(|request| request.workdir = format!("/{}", "x".repeat(4096))), ["workdir"]);
    assert_eq!(refused(|request| request.shell = "x".repeat(256)), ["shell"]);
    assert_eq!(refused(|request| request.shell = "sh\0".to_owned()), ["shell"]);
}

#[test]
fn labels_and_descriptions_have_character_limits() {
    assert!(refused(|request| request.description = "é".repeat(1000)).is_empty());
    assert_eq!(refused(|request| request.description = "é".repeat(1001)), ["description"]);
    assert_eq!(refused(|request| request.request_id = "x".repeat(129)), ["request_id"]);
    assert_eq!(refused(|request| request.labels = map(&[("", "x")])), ["labels[\"\"]"]);
    assert_eq!(refused(|request| request.labels = map(&[("a", &"x".repeat(256))])), ["labels[\"a\"]"]);
    assert_eq!(refused(|request| request.labels = map(&[(&"k".repeat(64), "x")])).len(), 1);
    let many = (0..65).map(|index| (format!("a{index}"), String::new())).collect();
    assert_eq!(refused(|request| request.labels = many), ["labels"]);
}

#[test]
fn invalid_durations_are_refused_without_panic() {
    for (seconds, nanos) in
        [(-1, 0), (0, -1), (0, 0), (i64::MAX, 0), (i64::MIN, i32::MIN), (1, 1_000_000_000), (86_401, 0)]
    {
        let timeout = Some(prost_types::Duration { seconds, nanos });
        assert_eq!(refused(|request| request.timeout = timeout), ["timeout"], "{seconds} {nanos}");
    }
    assert!(refused(|request| request.timeout = seconds(86_400)).is_empty());
    assert!(refused(|request| request.timeout = Some(prost_types::Duration { seconds: 0, nanos: 1 })).is_empty());
}

#[test]
fn queue_deadline_belongs_to_a_queued_request() {
    let read = |request| start(request, &Caller::local(), &settings()).map(|read| read.spec.when_full);
    assert_eq!(read(request()).unwrap(), task::WhenFull::Reject);
    let queue =
        |deadline| read(StartTaskRequest { when_full: WhenFull::Queue.into(), queue_deadline: deadline, ..request() });
    assert_eq!(queue(None).unwrap(), task::WhenFull::Queue { deadline: Duration::from_hours(1) });
    assert_eq!(queue(seconds(60)).unwrap(), task::WhenFull::Queue { deadline: Duration::from_mins(1) });
    for wrong in [0, -1, 86_401] {
        assert_eq!(fields(&queue(seconds(wrong)).unwrap_err()), ["queue_deadline"], "{wrong}");
    }
    assert_eq!(refused(|request| request.queue_deadline = seconds(60)), ["queue_deadline"]);
    assert_eq!(refused(|request| request.when_full = 7), ["when_full"]);
}

#[test]
fn sandbox_spec_is_checked_and_takes_defaults() {
    let spec = |change: &dyn Fn(&mut SandboxSpec)| {
        let mut spec = SandboxSpec::default();
        change(&mut spec);
        refused(|request| request.sandbox = Some(spec))
    };
    assert!(spec(&|_| {}).is_empty());
    assert!(spec(&|spec| spec.network_mode = "none".to_owned()).is_empty());
    for mode in ["my_net-1", "host", "container:other", "ns:/x", "a b"] {
        assert_eq!(spec(&|spec| spec.network_mode = mode.to_owned()), ["sandbox.network_mode"], "{mode}");
    }
    assert_eq!(spec(&|spec| spec.memory_bytes = 6 * 1024 * 1024 - 1), ["sandbox.memory_bytes"]);
    assert_eq!(spec(&|spec| spec.memory_bytes = -1), ["sandbox.memory_bytes"]);
    assert_eq!(spec(&|spec| spec.pids_limit = 7), ["sandbox.pids_limit"]);
    for cpus in [0.001, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(spec(&|spec| spec.cpus = cpus), ["sandbox.cpus"]);
    }
    assert_eq!(spec(&|spec| spec.user = "a b".to_owned()), ["sandbox.user"]);
    assert_eq!(spec(&|spec| spec.env = map(&[("a=b", "")])), ["sandbox.env[\"a=b\"]"]);
    let request = EnsureSandboxRequest { bot_id: "bot".to_owned(), spec: Some(SandboxSpec::default()) };
    assert_eq!(ensure(request, &Caller::local(), &settings()).unwrap().1, Some(settings().sandbox));
}

#[test]
fn sandbox_beyond_the_maxima_names_each_field() {
    let asked = |spec: SandboxSpec, settings: &Settings| {
        let request = EnsureSandboxRequest { bot_id: "bot".to_owned(), spec: Some(spec) };
        ensure(request, &Caller::local(), settings).map(|(_, spec)| spec)
    };
    let huge = SandboxSpec {
        memory_bytes: 1 << 60,
        cpus: 1e12,
        pids_limit: 4_194_304,
        image: "debian".to_owned(),
        network_mode: "corporate".to_owned(),
        ..Default::default()
    };
    let status = asked(huge, &settings()).unwrap_err();
    let all = ["spec.memory_bytes", "spec.cpus", "spec.pids_limit", "spec.image", "spec.network_mode"];
    assert_eq!(fields(&status), all);
    let described = status.get_details_bad_request().unwrap().field_violations;
    for (violation, maximum) in described.iter().zip(["17179869184", "16", "32768", "image, acme/*", "bridge, none"]) {
        assert!(violation.description.contains(maximum), "{violation:?}");
    }
    assert!(asked(SandboxSpec { image: "acme/tools:1".to_owned(), ..Default::default() }, &settings()).is_ok());
    // A tenant may have a smaller allowance, and then its defaults are no larger.
    let settings = settings();
    let less = TenantRules { max_cpus: Some(1.0), ..TenantRules::default() };
    settings.allowances.replace(&[(task::TenantId::local(), less)].into());
    assert_eq!(asked(SandboxSpec::default(), &settings).unwrap().unwrap().cpus, 1.0);
    let status = asked(SandboxSpec { cpus: 1.5, ..Default::default() }, &settings).unwrap_err();
    assert_eq!(fields(&status), ["spec.cpus"]);
}

#[test]
fn all_mistakes_are_listed_after_the_first() {
    let start =
        StartTaskRequest { command: "x".repeat(1024 * 1024 + 1), workdir: "src".to_owned(), ..Default::default() };
    let request = RunTaskRequest {
        start: Some(start),
        background_after: seconds(601),
        on_disconnect: 9,
        format: 7,
        acknowledge: false,
        acknowledge_mode: 9,
    };
    let status = run(request, &Caller::local(), &settings()).map(drop).unwrap_err();
    let expected = [
        "start.bot_id",
        "start.session_id",
        "start.command",
        "start.workdir",
        "background_after",
        "on_disconnect",
        "format",
        "acknowledge_mode",
    ];
    assert_eq!(fields(&status), expected);
    assert_eq!(status.message(), "start.bot_id must not be empty (and 7 more)");
    let described = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(described[2].description, "must be at most 1048576 bytes, has 1048577");
    assert_eq!(described[4].description, "must be at most 10m, is 10m 1s");
}

#[test]
fn refusal_with_many_mistakes_stays_small() {
    let env = (0..250).map(|index| (format!("={index}{}", "é".repeat(500)), "\0".to_owned())).collect();
    let status = start(StartTaskRequest { env, ..request() }, &Caller::local(), &settings()).map(drop).unwrap_err();
    assert_eq!(fields(&status).len(), DESCRIBED_LIMIT);
    assert!(status.details().len() < 8 * 1024, "{}", status.details().len());
}

#[test]
fn a_run_needs_something_to_start() {
    let status = run(RunTaskRequest::default(), &Caller::local(), &settings()).map(drop).unwrap_err();
    assert_eq!(fields(&status), ["start"]);
}

#[test]
fn a_forbidden_bots_task_is_not_found() {
    let caller = Caller { bots: BotFilter::Matching(vec!["mine".to_owned()]), ..Caller::local() };
    let ask = |bot_id: &str, task_id: &str| {
        get(
            &GetTaskRequest { task_id: task_id.to_owned(), bot_id: bot_id.to_owned(), session_id: String::new() },
            &caller,
        )
    };
    let id = TaskId::new().to_string();
    assert_eq!(ask("other", &id).unwrap_err().code(), Code::NotFound);
    assert_eq!(ask("mine", &id).unwrap().bots, BotFilter::One("mine".parse().unwrap()));
    assert_eq!(ask("", &id).unwrap().bots, caller.bots);
    assert_eq!(fields(&ask("", "17").unwrap_err()), ["task_id"]);
}

#[test]
fn selections_have_defaults_and_limits() {
    let ask = |selection| {
        let request = ReadOutputRequest { task_id: TaskId::new().to_string(), selection, ..Default::default() };
        super::read(&request, &Caller::local()).map(|(_, read, _)| match read {
            Read::Pieces(selection, _) => selection,
            other => panic!("{other:?}"),
        })
    };
    use read_output_request::Selection::{HeadTail, Range, Tail};
    assert_eq!(ask(None).unwrap(), ReadSelection::Tail { limit: 4096 });
    assert_eq!(
        ask(Some(Range(OutputRange { offset: 0, limit: 0 }))).unwrap(),
        ReadSelection::Range { offset: 0, limit: 65_536 }
    );
    let negative = ask(Some(Range(OutputRange { offset: -1, limit: -1 }))).unwrap_err();
    assert_eq!(fields(&negative), ["range.offset", "range.limit"]);
    assert_eq!(fields(&ask(Some(Tail(OutputTail { limit: 1_048_577 }))).unwrap_err()), ["tail.limit"]);
    let sides = ask(Some(HeadTail(OutputHeadTail { head: 524_289, tail: 0 }))).unwrap_err();
    assert_eq!(fields(&sides), ["head_tail.head"]);
}

#[test]
fn lines_and_formats_have_defaults_and_limits() {
    use errand_reading::{Grep, Query, Scan};
    use read_output_request::Selection::{Grep as Search, Lines};
    let ask = |selection, format: OutputFormat, max_characters| {
        let task_id = TaskId::new().to_string();
        let format = format.into();
        let request = ReadOutputRequest { task_id, selection, format, max_characters, ..Default::default() };
        super::read(&request, &Caller::local()).map(|(_, read, _)| read)
    };
    let whole = ReadSelection::HeadTail { head: 524_288, tail: 524_288 };
    assert!(matches!(ask(None, OutputFormat::Condensed, 0), Ok(Read::Condensed(all, 16_000)) if all == whole));
    assert!(matches!(ask(None, OutputFormat::Rendered, 0), Ok(Read::Rendered(ReadSelection::Tail { limit: 4096 }))));
    for (format, characters) in [
        (OutputFormat::Condensed, 199),
        (OutputFormat::Condensed, 200_001),
        (OutputFormat::Condensed, -1),
        (OutputFormat::Text, 300),
    ] {
        assert_eq!(fields(&ask(None, format, characters).unwrap_err()), ["max_characters"], "{format:?} {characters}");
    }
    let lines = |offset, limit| Some(Lines(LineSelection { offset, limit, stream: 0 }));
    for (given, wanted) in [((0, 0), (0, 200)), ((7, 9), (7, 9)), ((-5, 0), (-5, 2000)), ((-2000, 2000), (-2000, 2000))]
    {
        let Ok(Read::Lines(Scan { query: Query::Lines { offset, limit }, stream: None })) =
            ask(lines(given.0, given.1), OutputFormat::Rendered, 0)
        else {
            panic!("{given:?}")
        };
        assert_eq!((offset, limit), wanted);
    }
    assert_eq!(
        fields(&ask(lines(-2001, 2001), OutputFormat::Unspecified, 0).unwrap_err()),
        ["lines.offset", "lines.limit"]
    );
    for format in [OutputFormat::Bytes, OutputFormat::Text, OutputFormat::Lz4, OutputFormat::Condensed] {
        assert_eq!(fields(&ask(lines(0, 0), format, 0).unwrap_err()), ["format"]);
    }
    let search = |pattern: &str| LineSearch {
        pattern: Some(line_search::Pattern::Regex(pattern.to_owned())),
        ..LineSearch::default()
    };
    let grep = |search| ask(Some(Search(search)), OutputFormat::Unspecified, 0);
    let Ok(Read::Lines(Scan { query: Query::Grep(Grep { before: 0, after: 0, most: 100, .. }), .. })) =
        grep(search("x"))
    else {
        panic!("the defaults")
    };
    let wrong = LineSearch { before: 21, after: -1, max_matches: 1001, stream: 9, ..search("(") };
    let expected = ["grep.regex", "grep.before", "grep.after", "grep.max_matches", "grep.stream"];
    assert_eq!(fields(&grep(wrong).unwrap_err()), expected);
    assert_eq!(fields(&grep(search(&"x".repeat(513))).unwrap_err()), ["grep.regex"]);
    assert_eq!(fields(&grep(LineSearch::default()).unwrap_err()), ["grep.substring"]);
}

#[test]
fn streams_cannot_be_condensed() {
    let request = |format: OutputFormat| StreamOutputRequest {
        task_id: TaskId::new().to_string(),
        format: format.into(),
        ..Default::default()
    };
    let refused = stream(&request(OutputFormat::Condensed), &Caller::local()).err().unwrap();
    assert_eq!(fields(&refused), ["format"]);
    assert!(stream(&request(OutputFormat::Rendered), &Caller::local()).is_ok());
    let request =
        RunTaskRequest { start: Some(self::request()), format: OutputFormat::Condensed.into(), ..Default::default() };
    assert_eq!(fields(&run(request, &Caller::local(), &settings()).err().unwrap()), ["format"]);
}

#[test]
fn lists_check_pages_statuses_and_labels() {
    let request = ListTasksRequest {
        statuses: vec![1, 0, 99],
        page_size: 1001,
        page_token: "?".to_owned(),
        ..Default::default()
    };
    let status = list(request, &Caller::local()).unwrap_err();
    assert_eq!(fields(&status), ["statuses[1]", "statuses[2]", "page_size", "page_token"]);
    let caller = Caller { bots: BotFilter::Matching(vec!["mine".to_owned()]), ..Caller::local() };
    let query = list(ListTasksRequest::default(), &caller).unwrap();
    assert_eq!((query.limit, query.bots), (50, caller.bots));
}

#[test]
fn waits_and_stops_have_limits() {
    let id = TaskId::new().to_string();
    let request = WaitTaskRequest {
        task_id: id.clone(),
        timeout: seconds(601),
        until_idle: Some(prost_types::Duration { seconds: 0, nanos: 5 }),
        ..Default::default()
    };
    assert_eq!(fields(&wait(request, &Caller::local()).map(drop).unwrap_err()), ["timeout", "until_idle"]);
    let request = StopTaskRequest { task_id: id, grace: seconds(61), reason: "x".repeat(1001), ..Default::default() };
    assert_eq!(fields(&stop(request, &Caller::local(), &settings()).unwrap_err()), ["grace", "reason"]);
}

#[test]
fn deliveries_have_limits() {
    let lease = Duration::from_secs(60);
    let request =
        SubscribeRequest { after_sequence: -1, delivery: 5, lease_duration: seconds(0), ..Default::default() };
    let status = subscribe(&request, &Caller::local(), lease).map(drop).unwrap_err();
    assert_eq!(fields(&status), ["bot_id", "after_sequence", "delivery", "lease_duration"]);
    let request = DrainNotificationsRequest {
        bot_id: "bot".to_owned(),
        max_notifications: -1,
        lease_duration: seconds(3601),
        ..Default::default()
    };
    let status = drain(&request, &Caller::local(), lease).map(drop).unwrap_err();
    assert_eq!(fields(&status), ["max_notifications", "lease_duration"]);
}

#[test]
fn notifications_are_chosen_by_sequence_or_lease() {
    let choose = |sequences: Vec<i64>, lease: &str| {
        chosen("bot", "", sequences, lease, &Caller::local()).map_or_else(|status| fields(&status), |_| Vec::new())
    };
    let lease = task::LeaseId::new().to_string();
    assert!(choose(vec![1], "").is_empty() && choose(vec![], &lease).is_empty());
    assert_eq!(choose(vec![], ""), ["sequences"]);
    assert_eq!(choose(vec![1], &lease), ["sequences"]);
    assert_eq!(choose(vec![1; 1001], ""), ["sequences"]);
    assert_eq!(choose(vec![], "x"), ["lease_id"]);
}

#[test]
fn process_options_are_checked() {
    assert_eq!(refused(|start| start.terminal = Some(TerminalSize { rows: 0, columns: 80 })), ["terminal.rows"]);
    assert_eq!(refused(|start| start.terminal = Some(TerminalSize { rows: 1, columns: 65_536 })), ["terminal.columns"]);
    for user in ["a b", ":1", "1:", "a:b:c", "-u", "a:-g", &"x".repeat(129)] {
        assert_eq!(refused(|start| start.user = user.to_owned()), ["user"], "{user:?}");
    }
    for user in ["root", "1000", "1000:1000", "www-data:users", "joe.doe@x_y$"] {
        assert!(refused(|start| start.user = user.to_owned()).is_empty(), "{user:?}");
    }
    for nice in [-1, 20, 300] {
        assert_eq!(refused(|start| start.nice = nice), ["nice"]);
    }
    for limit in [-1, 65_535, (10 << 30) + 1] {
        assert_eq!(refused(|start| start.output_limit_bytes = limit), ["output_limit_bytes"], "{limit}");
    }
    let limits = |limits| refused(|start| start.limits = Some(limits));
    assert_eq!(limits(ResourceLimits { open_files: Some(2), ..Default::default() }), ["limits.open_files"]);
    assert_eq!(limits(ResourceLimits { cpu_seconds: Some(-1), ..Default::default() }), ["limits.cpu_seconds"]);
    assert!(limits(ResourceLimits { core_bytes: Some(0), ..Default::default() }).is_empty());
    let both = refused(|start| {
        start.terminal = Some(TerminalSize { rows: 24, columns: 80 });
        start.separate_stderr = true;
    });
    assert_eq!(both, ["separate_stderr"]);
}

#[test]
fn process_options_reach_the_specification() {
    let request = StartTaskRequest {
        stdin: true,
        terminal: Some(TerminalSize { rows: 65_535, columns: 1 }),
        user: "joe:users".to_owned(),
        clean_env: true,
        limits: Some(ResourceLimits { processes: Some(7), ..Default::default() }),
        nice: 19,
        output_limit_bytes: 65_536,
        ..request()
    };
    let spec = start(request, &Caller::local(), &settings()).unwrap().spec;
    assert_eq!(spec.resident_only(), ["stdin", "terminal", "user", "clean_env", "limits", "nice"]);
    assert_eq!(spec.terminal, Some(task::TerminalSize { rows: 65_535, columns: 1 }));
    assert_eq!((spec.limits.processes, spec.nice, spec.output_limit), (Some(7), 19, 65_536));
}

#[test]
fn input_is_checked() {
    let id = TaskId::new().to_string();
    let good = || WriteInputRequest { task_id: id.clone(), ..Default::default() };
    let (_, input) = write_input(good(), &Caller::local()).unwrap();
    assert_eq!((input.offset, input.timeout, input.end), (None, Duration::from_secs(10), false));
    for (bad, field) in [
        (WriteInputRequest { task_id: String::new(), ..good() }, "task_id"),
        (WriteInputRequest { offset: Some(-1), ..good() }, "offset"),
        (WriteInputRequest { data: vec![0; (1 << 20) + 1].into(), ..good() }, "data"),
        (WriteInputRequest { timeout: seconds(601), ..good() }, "timeout"),
    ] {
        assert_eq!(fields(&write_input(bad, &Caller::local()).unwrap_err()), [field]);
    }
    let resize = |size| {
        resize_terminal(&ResizeTerminalRequest { task_id: id.clone(), size, ..Default::default() }, &Caller::local())
    };
    assert_eq!(fields(&resize(None).unwrap_err()), ["size"]);
    assert_eq!(fields(&resize(Some(TerminalSize { rows: 1, columns: 0 })).unwrap_err()), ["size.columns"]);
    assert!(resize(Some(TerminalSize { rows: 1, columns: 1 })).is_ok());
}

#[test]
fn watches_are_checked_by_field() {
    let substring = |text: &str| OutputWatch { kind: Some(output_watch::Kind::Substring(text.to_owned())), once: true };
    let regex = |pattern: &str| OutputWatch { kind: Some(output_watch::Kind::Regex(pattern.to_owned())), once: false };
    let start = |watches| start(StartTaskRequest { watches, ..request() }, &Caller::local(), &settings());
    let read = start(vec![substring("error"), regex(r"^fatal: \w+")]).unwrap().watches;
    assert_eq!((read.len(), read[0].once, read[1].pattern.as_str()), (2, true, r"^fatal: \w+"));
    let wrong =
        vec![OutputWatch::default(), substring(""), regex("(a{1000}){1000}"), substring(&"x".repeat(512)), regex("x*")];
    let refused = start(wrong).unwrap_err();
    let expected = ["watches[0].substring", "watches[1].substring", "watches[2].regex", "watches[4].regex"];
    assert_eq!(fields(&refused), expected);
    assert_eq!(fields(&start(vec![substring("x"); 9]).unwrap_err()), ["watches"]);
}

#[test]
fn secret_variables_have_rules_that_quote_no_value() {
    let with = |name: &str, value: &str| {
        let env = [("TAKEN".to_owned(), "x".to_owned())].into();
        StartTaskRequest { secret_env: [(name.to_owned(), value.to_owned())].into(), env, ..request() }
    };
    let read = start(with("API_KEY", "hunter2\n"), &Caller::local(), &settings()).unwrap();
    assert_eq!(read.secret_env["API_KEY"].expose(), "hunter2\n");
    assert!(!format!("{read:?}").contains("hunter2"));
    let long = "hunter2".repeat(5000);
    for (name, value, rule) in [
        ("1A", "hunter2", "must have a name of letters"),
        ("A-B", "hunter2", "must have a name of letters"),
        ("", "hunter2", "must have a name of letters"),
        ("PATH", "hunter2", "must not have a name that shells"),
        ("ERRAND_X", "hunter2", "must not have a name that shells"),
        ("TAKEN", "hunter2", "must not be in env too"),
        ("A", "", "must have a value of 1 to 32768 bytes, has 0"),
        ("A", &long, "must have a value of 1 to 32768 bytes, has 35000"),
        ("A", "hunter2\0", "must not hold NUL"),
    ] {
        let refused = start(with(name, value), &Caller::local(), &settings()).unwrap_err();
        let violations = refused.get_details_bad_request().unwrap().field_violations;
        let found = violations.iter().find(|found| found.description.contains(rule));
        assert!(found.is_some_and(|found| found.field == format!("secret_env[{name:?}]")), "{name}: {violations:?}");
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
    }
    let many = (0..300).map(|number| (format!("A{number}"), "v".repeat(300))).collect();
    let refused = start(StartTaskRequest { secret_env: many, ..request() }, &Caller::local(), &settings()).unwrap_err();
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.iter().filter(|violation| violation.field == "secret_env").count(), 2, "{violations:?}");
}
