//! Tests of the command line against a scripted server over a real socket, and of its arguments.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use server::{Fixture, ID, LOG};
use tokio::{io::AsyncWrite, sync::watch};

use super::*;

mod server;

/// The result of one command.
struct Ran {
    code: u8,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Fixture {
    async fn tasks(&self) -> connection::Tasks {
        let cli = Cli::try_parse_from(["errand", "--server", &self.url, "ps"]).unwrap();
        Connection::open(&cli.globals).await.unwrap().tasks()
    }

    async fn run(&self, words: &[&str]) -> Ran {
        run_with(&[&["errand", "--server", &self.url], words].concat()).await
    }
}

async fn run_with(words: &[&str]) -> Ran {
    let cli = Cli::try_parse_from(words).unwrap();
    let (stdout, stderr) = (Sink::default(), Sink::default());
    let mut console = Console::into_writers(Box::new(stdout.clone()), Box::new(stderr.clone()), cli.globals.json);
    let code = run_on(cli, &mut console).await;
    let stdout = stdout.0.lock().unwrap().clone();
    let stderr = String::from_utf8(stderr.0.lock().unwrap().clone()).unwrap();
    Ran { code, stdout, stderr }
}

/// A writer that keeps everything.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn run_follows_background_and_exits_like_the_command() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["run", "--", "work", "a b"]).await;
    assert_eq!(ran.stdout, LOG, "every byte once, as it was");
    assert_eq!(ran.stderr, "errand: the command was ended by SIGKILL\n");
    assert_eq!(ran.code, 137);
    assert_eq!(fixture.seen(), ["run \"work 'a b'\" acknowledge=true", "stream from 4", "wait acknowledge=true"]);
}

#[tokio::test]
async fn successful_run_prints_only_output() {
    let ran = Fixture::start().await.run(&["run", "true"]).await;
    assert_eq!((ran.code, ran.text().as_str(), ran.stderr.as_str()), (0, "", ""));
}

#[tokio::test]
async fn run_with_background_after_leaves_the_task_running() {
    let ran = Fixture::start().await.run(&["run", "--background-after", "1s", "work"]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "one\n"));
    assert_eq!(ran.stderr, format!("errand: task {ID} goes on in the background\n"));
}

#[tokio::test]
async fn first_ctrl_c_stops_and_second_quits() {
    let fixture = Fixture::start().await;
    let tasks = fixture.tasks().await;
    let (accepted, accepted_id) = watch::channel(None);
    let (press, mut presses) = tokio::sync::mpsc::channel(2);
    let ctrl_c = async move || {
        presses.recv().await.unwrap();
        Ok(())
    };
    let press_keys = async {
        press.send(()).await.unwrap();
        tokio::task::yield_now().await;
        assert!(fixture.seen().is_empty(), "the task has no name yet");
        accepted.send_replace(Some(ID.to_owned()));
        while fixture.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        press.send(()).await.unwrap();
    };
    let (code, ()) = tokio::join!(run::interrupted(tasks, accepted_id, ctrl_c), press_keys);
    assert_eq!(code.unwrap(), 130);
    assert_eq!(fixture.seen(), ["stop \"interrupted from the keyboard\""]);
}

#[tokio::test]
async fn partly_taken_input_arrives_whole_in_order() {
    let fixture = Fixture::start().await;
    for (order, expected) in [
        (keyboard::Order::Alone, ["Some(0) \"abcdefg\"", "Some(3) \"defg\"", "Some(6) \"g\"", "Some(7) \"\""]),
        (keyboard::Order::AmongOthers, ["None \"abcdefg\"", "None \"defg\"", "None \"g\"", "None \"\""]),
    ] {
        let tasks = fixture.tasks().await;
        let seen = fixture.seen().len();
        let left = keyboard::forward(&b"abcdefg"[..], false, order, tasks, ID.to_owned()).await.unwrap();
        assert_eq!(left, keyboard::Left::Ended);
        let expected: Vec<String> =
            expected.iter().map(|call| format!("input {call} end={}", call.ends_with("\"\""))).collect();
        assert_eq!(fixture.seen()[seen..], expected);
    }
}

#[tokio::test]
async fn detach_keys_are_not_sent() {
    let fixture = Fixture::start().await;
    let tasks = fixture.tasks().await;
    let left = keyboard::forward(&b"\x10\x11"[..], true, keyboard::Order::AmongOthers, tasks, ID.to_owned()).await;
    assert_eq!(left.unwrap(), keyboard::Left::Detached);
    assert!(fixture.seen().is_empty());
}

#[tokio::test]
async fn json_run_prints_every_stream_message() {
    let ran = Fixture::start().await.run(&["--json", "run", "work"]).await;
    let lines: Vec<serde_json::Value> = ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> =
        lines.iter().map(|line| line.as_object().unwrap().keys().next().unwrap().as_str()).collect();
    assert_eq!(events, ["accepted", "output", "backgrounded", "output", "finished"]);
    assert_eq!(lines[4]["finished"]["outcome"]["signaled"]["name"], "SIGKILL");
    assert_eq!((ran.code, ran.stderr.as_str()), (137, ""));
}

#[tokio::test]
async fn detached_run_prints_only_the_id() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["run", "-d", "--token", "secret", "--", "work"]).await;
    assert_eq!((ran.code, ran.text()), (0, format!("{ID}\n")));
    assert_eq!(fixture.seen(), ["start \"work\" Some(\"Bearer secret\")"]);
}

#[tokio::test]
async fn logs_shows_whole_tail_or_followed_log() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.run(&["logs", ID]).await.stdout, LOG);
    assert_eq!(fixture.run(&["logs", "--tail", "6", ID]).await.stdout, &LOG[LOG.len() - 6..]);
    assert_eq!(fixture.run(&["logs", "--tail", "6000", ID]).await.stdout, LOG);
    let ran = fixture.run(&["logs", "-f", "--offset", "4", ID]).await;
    assert_eq!((ran.code, &ran.stdout[..]), (0, &LOG[4..]));
}

#[tokio::test]
async fn logs_shows_lines_and_tells_the_rest() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["logs", "--lines", "3:2", ID]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "3:line 3\n4:line 4\n"));
    let notes: Vec<&str> = ran.stderr.lines().collect();
    let expected = [
        "errand: lines 3 to 4 of 50",
        "errand: 10 more of these lines are not shown: an answer has a limit",
        "errand: 10 characters of long lines are not shown",
        "errand: only the first 1 KiB were looked through: the rest would take too long",
        "errand: 100 B of the output were not kept",
    ];
    assert_eq!(notes, expected);
    assert_eq!(fixture.run(&["logs", "--lines", "-50", ID]).await.code, 0);
    assert_eq!(fixture.seen(), ["lines 2 2", "lines -50 0"]);
}

#[tokio::test]
async fn logs_searches_like_grep() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["logs", ID, "--grep", "a.*b"]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "3-line 3\n4:line 4\n--\n9:line 9\n"));
    assert!(ran.stderr.contains("errand: 10 of 12 matching lines are not shown (see --max)\n"), "{}", ran.stderr);
    let words = ["logs", ID, "--grep", "x", "-F", "-i", "-C", "3", "-A", "1", "--max", "9", "--stream", "stderr"];
    assert_eq!(fixture.run(&words).await.code, 0);
    let ran = fixture.run(&["--json", "logs", ID, "--grep", "x"]).await;
    let answer: serde_json::Value = serde_json::from_str(&ran.text()).unwrap();
    assert_eq!((&answer["lines"][2]["number"], &answer["omitted_lines"]), (&9.into(), &10.into()));
    let seen = fixture.seen();
    assert_eq!(seen[0], r#"grep Some(Regex("a.*b")) false 0 0 0 0"#);
    assert_eq!(seen[1], r#"grep Some(Substring("x")) true 3 1 9 2"#);
    assert_eq!(fixture.run(&["logs", ID, "--stream", "stderr"]).await.code, 64);
}

#[tokio::test]
async fn logs_condenses_and_renders() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["logs", "--condensed", "--characters", "300", ID]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "short\n"));
    let notes: Vec<&str> = ran.stderr.lines().collect();
    let expected = [
        "errand: 7 lines are folded",
        "errand: 80 characters with 8 line breaks are left out",
        "errand: 2 KiB of the output were not read, or not kept",
    ];
    assert_eq!(notes, expected);
    fixture.run(&["logs", "--condensed", "--tail", "9", ID]).await;
    assert_eq!(fixture.run(&["logs", "--rendered", ID]).await.stdout, LOG);
    assert_eq!(fixture.run(&["logs", "--rendered", "-f", "--offset", "4", ID]).await.stdout, &LOG[4..]);
    let expected = [
        "condensed to 300 of None",
        "condensed to 0 of Some(Tail(OutputTail { limit: 9 }))",
        "rendered from 0 follow=false",
        "rendered from 4 follow=true",
    ];
    assert_eq!(fixture.seen(), expected);
}

#[tokio::test]
async fn wait_exits_like_the_command_or_124() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["wait", ID]).await;
    assert_eq!((ran.code, ran.text().as_str()), (137, ""));
    let ran = fixture.run(&["wait", "--timeout", "1ms", "endless"]).await;
    assert_eq!(ran.code, 124);
    assert_eq!(ran.stderr, "errand: task endless is running after a wait of 1ms\n");
    assert!(fixture.seen().iter().all(|call| call == "wait acknowledge=false"));
}

#[tokio::test]
async fn shown_ends_are_acknowledged_by_receipt() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.run(&["wait", "--acknowledge", ID]).await.code, 137);
    assert_eq!(fixture.seen(), ["wait acknowledge=false on receipt", "received lease"]);
    let ran = fixture.run(&["logs", "--acknowledge", ID]).await;
    assert_eq!((ran.code, &ran.stdout[..]), (0, LOG));
    assert_eq!(fixture.seen()[2..], ["received lease"]);
}

#[tokio::test]
async fn notify_changes_what_it_names() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["notify", ID, "--notify", "failure", "--heartbeat", "5m", "--tail-bytes", "0"]).await;
    let expected = "notify=failure heartbeat=5m idle-after=off tail-bytes=0 head-bytes=0";
    assert_eq!((ran.code, ran.text()), (0, format!("{ID}  {expected}\n")));
}

#[tokio::test]
async fn wait_goes_on_from_the_searched_position() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["wait", "--until", "match=ready", "--until", "stalled", ID]).await;
    assert_eq!((ran.code, ran.text().as_str(), ran.stderr.as_str()), (0, "server ready\n", ""));
    assert_eq!(fixture.seen().len(), 2);
    let ran = fixture.run(&["wait", "--json", "--until", "regex=ready", ID]).await;
    let answer: serde_json::Value = serde_json::from_str(&ran.text()).unwrap();
    assert_eq!((&answer["result"], &answer["output_match"]["offset"]), (&"WAIT_RESULT_MATCHED".into(), &9.into()));
}

#[tokio::test]
async fn wait_for_all_asks_again_for_the_rest() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["wait", "--until", "match=x", "a", "b", "c"]).await;
    assert_eq!(ran.code, 137);
    let said: Vec<String> = ran.text().lines().map(str::to_owned).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].starts_with("a  finished   ended by SIGKILL") && said[2].starts_with("c  stalled"), "{said:?}");
    let seen = fixture.seen();
    assert_eq!(seen[0], r#"wait for ["a", "b", "c"] mode=2 from []"#);
    assert_eq!(seen[1], r#"wait for ["b", "c"] mode=2 from [("b", 7), ("c", 7)]"#);
    let ran = fixture.run(&["wait", "--any", "a", "b"]).await;
    assert_eq!((ran.code, ran.text().lines().count()), (137, 1));
}

#[tokio::test]
async fn signal_goes_to_the_group_or_leader() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["signal", ID, "int"]).await;
    assert_eq!((ran.code, ran.text()), (0, format!("{ID}  signaled 2 processes\n")));
    assert_eq!(fixture.run(&["signal", ID, "HUP", "--leader"]).await.code, 0);
    assert_eq!(fixture.seen(), ["signal int SIGNAL_TARGET_GROUP", "signal HUP SIGNAL_TARGET_LEADER"]);
}

#[tokio::test]
async fn watch_replaces_or_clears_the_patterns() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["watch", ID, "error", "once:regex:^ready", "--from", "0"]).await;
    assert_eq!((ran.code, ran.text()), (0, "\"error\" from byte 9\nonce /^ready/ from byte 9\n".to_owned()));
    assert_eq!(fixture.run(&["watch", ID, "--clear"]).await.code, 0);
    assert_eq!(fixture.seen(), ["watches 2 from Some(0)", "watches 0 from None"]);
}

#[tokio::test]
async fn ps_follows_events_line_by_line() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["ps", "--follow"]).await;
    let said: Vec<String> = ran.text().lines().map(str::to_owned).collect();
    assert!(ran.code == 0 && said.len() == 2, "{said:?}");
    assert!(said[0].contains("  listed  ") && said[1].contains("  ended  ") && said[1].ends_with("ended by SIGKILL"));
    let ran = fixture.run(&["ps", "-f", "--json", "--cursor", "c"]).await;
    assert_eq!(ran.text().lines().filter(|line| line.contains(r#""cursor":"c""#)).count(), 4);
    assert_eq!(fixture.seen(), [r#"watch after """#, r#"watch after "c""#]);
}

#[tokio::test]
async fn ps_reads_every_page_until_its_limit() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.run(&["ps"]).await.text().lines().count(), 3);
    assert_eq!(fixture.run(&["ps", "--limit", "1"]).await.text().lines().count(), 2);
    let ran = fixture.run(&["ps", "--json"]).await;
    assert!(
        ran.text().lines().all(|line| line.starts_with('{') && line.contains("TASK_STATUS_RUNNING")),
        "{}",
        ran.text()
    );
}

#[tokio::test]
async fn stop_reports_failures_and_stops_the_rest() {
    let ran = Fixture::start().await.run(&["stop", "gone", ID]).await;
    assert_eq!((ran.code, ran.text()), (1, format!("{ID}  failed\n")));
    assert_eq!(ran.stderr, "errand: there is no such task\n");
}

#[tokio::test]
async fn stop_can_acknowledge_its_own_end() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.run(&["stop", "--acknowledge", ID]).await.code, 0);
    assert_eq!(fixture.seen(), ["stop \"\" acknowledged"]);
}

#[tokio::test]
async fn health_exit_code_shows_whether_server_serves() {
    let fixture = Fixture::start().await;
    let ran = fixture.run(&["health"]).await;
    assert_eq!((ran.code, ran.text().as_str()), (0, "serving\n"));
    assert_eq!(run_with(&["errand", "--server", "http://127.0.0.1:1", "health"]).await.code, 1);
}

#[tokio::test]
async fn unreachable_server_error_names_the_address() {
    let ran = run_with(&["errand", "--server", "http://127.0.0.1:1", "ps"]).await;
    assert_eq!(ran.code, 69);
    assert_eq!(ran.stderr, "errand: no server answers at http://127.0.0.1:1 (is `errand serve` running?)\n");
    let ran = run_with(&["errand", "--json", "--server", "http://127.0.0.1:1", "ps"]).await;
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["error"]["code"], "UNAVAILABLE");
}

#[tokio::test]
async fn doctor_needs_no_server_and_exits_accordingly() {
    let ran = run_with(&["errand", "--json", "doctor", "--docker-host", "unix:///no/engine/here.sock"]).await;
    let lines: Vec<serde_json::Value> = ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (end, checks) = lines.split_last().unwrap();
    assert_eq!((&checks[0]["name"], &checks[0]["state"]), (&"docker".into(), &"missing".into()));
    assert!(checks[0]["remedy"].is_string());
    let state = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap()["state"].clone();
    assert_eq!([state("postgresql"), state("kubernetes")], ["not_configured", "not_configured"]);
    assert_eq!(ran.code, if end["works"].as_bool().unwrap() { 0 } else { 1 });
    assert_eq!(run_with(&["errand", "doctor", "--cpus", "-1"]).await.code, 64);
}

#[tokio::test]
async fn serve_refuses_wrong_settings_with_exit_64() {
    let words = ["errand", "serve", "--cpus", "-1", "--listen=0.0.0.0:1", "--stop-tasks-on-exit"];
    let ran = run_with(&words).await;
    assert_eq!(ran.code, 64);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("errand: --cpus: \"-1\" is not "), "{lines:?}");
    assert!(lines[1].starts_with("errand: --listen: without a tokens file"), "{lines:?}");
}

#[test]
fn the_arguments_are_consistent() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn contradictory_arguments_are_refused() {
    let refused = |line: &str| {
        let error = Cli::try_parse_from(line.split_whitespace()).expect_err(line);
        assert!(error.use_stderr(), "{line}");
        error.to_string()
    };
    assert!(refused("errand run --env A -- true").contains("expected NAME=VALUE"));
    assert!(refused("errand run --timeout 30 -- true").contains("such as 30s"));
    for line in [
        "errand",
        "errand run",
        "errand run -d --background-after 1s true",
        "errand run --no-shell --shell sh true",
        "errand stop",
        "errand stop --all task",
        "errand stop --bot b task",
        "errand events -f --all",
        "errand events ack",
        "errand logs --tail -1 task",
        "errand logs --tail 1 --offset 1 task",
        "errand logs --lines 0 task",
        "errand logs --lines 1 --grep x task",
        "errand logs --condensed -f task",
        "errand logs --characters 300 task",
        "errand logs -i task",
        "errand logs --grep x --tail 9 task",
        "errand serve --no-such-flag 1",
        "errand wait",
        "errand wait --any --all a b",
        "errand wait --until soon task",
        "errand signal task",
        "errand watch task",
        "errand watch task --clear x",
        "errand run --watch once: true",
        "errand ps --follow --all",
        "errand ps --cursor c",
        "errand run --notify sometimes true",
        "errand run --heartbeat 5 true",
        "errand notify",
        "errand logs -f --acknowledge task",
    ] {
        refused(line);
    }
}

#[test]
fn the_flags_of_serve_are_taken_as_text() {
    let cli =
        Cli::try_parse_from(["errand", "serve", "--config", "f", "--cpus", "many", "--stop-tasks-on-exit"]).unwrap();
    let Command::Serve(args) = cli.command else { unreachable!("the words say serve") };
    assert_eq!(args.config.unwrap().to_str(), Some("f"));
    let expected = [("cpus", "many".to_owned()), ("stop-tasks-on-exit", "true".to_owned())];
    assert_eq!(args.flags.0, expected.into());
}

#[test]
fn events_can_be_acknowledged_by_sequence() {
    let cli = Cli::try_parse_from(["errand", "events", "ack", "--bot", "b", "3", "4"]).unwrap();
    let Command::Events(args) = cli.command else { unreachable!("the words say events") };
    let Some(args::EventsAction::Ack { scope, sequences }) = args.action else { unreachable!("the words say ack") };
    assert_eq!((scope.bot.as_str(), sequences), ("b", vec![3, 4]));
}
