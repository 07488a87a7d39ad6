//! What a command is started with, and how its end is reported.

use errand_runtime::{NotStarted, RuntimeError};
use errand_task::{Ending, Nonce, Program, Signal, StartFailure, TaskId, TaskSpec, sentinel::Sentinel};

use super::bench::{Bench, SETTINGS, read, spec, text};

pub async fn output_and_exit_code_match_the_command(bench: Bench) {
    let ran = bench.run(&text("echo out; echo err >&2; printf '%s' \"$GREETING\"; exit 3")).await;
    assert_eq!(ran.text(), "out\nerr\nhello \"world\"\n$HOME");
    assert_eq!(ran.ending, Some(Ending::Exited(3)));
    assert_eq!(ran.over, Some((ran.output.len() as u64, false)));
    assert!(ran.process.is_some());
    assert_eq!(bench.log(ran.id.unwrap()).await, ran.output);
}

pub async fn exit_codes_and_signals_are_distinct(bench: Bench) {
    let signal = |number| Some(Ending::Signaled(Signal::new(number).unwrap()));
    for (command, ending) in [
        ("exit 0", Some(Ending::Exited(0))),
        ("exit 255", Some(Ending::Exited(255))),
        ("exit 9", Some(Ending::Exited(9))),
        ("exit 130", Some(Ending::Exited(130))),
        ("exit 137", Some(Ending::Exited(137))),
        ("exit 141", Some(Ending::Exited(141))),
        ("kill -9 $$", signal(9)),
        ("kill -TERM $$; sleep 9", signal(15)),
        ("kill -INT $$; sleep 9", signal(2)),
        ("kill -PIPE $$; sleep 9", signal(13)),
        ("kill -SEGV $$; sleep 9", signal(11)),
    ] {
        assert_eq!(bench.run(&text(command)).await.ending, ending, "{command}");
    }
}

pub async fn no_command_text_breaks_the_wrapper(bench: Bench) {
    let long = format!("echo begin; : '{}'; echo end", "x".repeat(1024 * 1024 - 64));
    for (command, ending, output) in [
        ("exit 7", Ending::Exited(7), ""),
        ("echo a # a comment", Ending::Exited(0), "a\n"),
        ("echo 'a)' \"(b\" \\)", Ending::Exited(0), "a) (b )\n"),
        ("cat <<END\nhere $((1 + 1))\nEND", Ending::Exited(0), "here 2\n"),
        ("cat <<'END'\n$x ) ' \"\nEND\n", Ending::Exited(0), "$x ) ' \"\n"),
        ("echo a \\", Ending::Exited(0), "a"),
        ("echo 77 >&3 2>/dev/null; echo on", Ending::Exited(0), "on\n"),
        ("exec 3>&-; echo on", Ending::Exited(0), "on\n"),
        ("exec 5>&- 9>&-; echo on", Ending::Exited(0), "on\n"),
        ("echo ended exited 1; echo over 0 0 >&2", Ending::Exited(0), "ended exited 1\nover 0 0\n"),
        ("echo a; exec >&- 2>&-; exit 5", Ending::Exited(5), "a\n"),
        ("printf 'a\\000b'", Ending::Exited(0), "a\0b"),
        ("printf 'no newline'", Ending::Exited(0), "no newline"),
        ("set -e; false; echo no", Ending::Exited(1), ""),
        ("trap 'echo bye; exit 4' EXIT; echo hi", Ending::Exited(4), "hi\nbye\n"),
        ("echo over >/dev/stderr; echo on >/dev/stdout", Ending::Exited(0), "over\non\n"),
        ("cat; echo eof", Ending::Exited(0), "eof\n"),
        (&long, Ending::Exited(0), "begin\nend\n"),
    ] {
        let ran = bench.run(&text(command)).await;
        let shown: String = command.chars().take(60).collect();
        assert_eq!(ran.ending, Some(ending), "{shown}: {}", ran.text());
        assert!(ran.text().contains(output), "{shown}: {:?}", ran.text());
        assert_eq!(bench.log(ran.id.unwrap()).await, ran.output, "{shown}");
    }
    // A syntax error is an error of the shell, and the command's own exit code and output report it.
    for broken in ["echo 'unbalanced", "echo (", "if", "cat <<END\nno end"] {
        let ran = bench.run(&text(broken)).await;
        assert!(matches!(ran.ending, Some(Ending::Exited(_))), "{broken}: {:?}", ran.ending);
    }
}

pub async fn arguments_reach_the_program_unchanged(bench: Bench) {
    let argv = ["printf", "[%s]", "a b", "", "'\"$x\\", "-n", "#", "*"].map(str::to_owned).to_vec();
    let ran = bench.run(&spec(Program::Argv(argv))).await;
    assert_eq!(ran.text(), "[a b][]['\"$x\\][-n][#][*]");
    assert_eq!(ran.ending, Some(Ending::Exited(0)));
}

pub async fn start_failures_are_distinguished(bench: Bench) {
    bench.sh("mkdir -p /tmp/d; echo x >/tmp/plain; chmod 644 /tmp/plain").await;
    let argv = |program: &str| spec(Program::Argv(vec![program.to_owned()]));
    let shell = |shell: &str| spec(Program::Shell { text: "true".to_owned(), shell: Some(shell.to_owned()) });
    let workdir = |path: &str| TaskSpec { workdir: Some(path.to_owned()), ..text("true") };
    for (spec, expected) in [
        (argv("no-such-program"), (StartFailure::NotFound, Some(2))),
        (argv("/no/such/program"), (StartFailure::NotFound, Some(2))),
        (argv("/tmp/plain"), (StartFailure::NotExecutable, Some(13))),
        (argv("/tmp/d"), (StartFailure::NotExecutable, Some(13))),
        (shell("no-such-shell"), (StartFailure::NotFound, Some(2))),
        (workdir("/no/such/directory"), (StartFailure::NoSuchDirectory, Some(2))),
        (workdir("/tmp/plain"), (StartFailure::NoSuchDirectory, Some(20))),
    ] {
        match bench.run(&spec).await.ending {
            Some(Ending::FailedToStart { failure, errno, message }) => {
                assert_eq!((failure, errno), expected, "{spec:?}");
                assert!(message.contains(": "), "names what it is about: {message}");
            }
            other => panic!("{spec:?}: {other:?}"),
        }
    }
}

pub async fn oversized_arguments_have_their_own_failure(bench: Bench) {
    // The kernel accepts 128 KiB per string; the second string is too long only together with its name.
    for (length, env) in [(200 * 1024, false), (128 * 1024, false), (128 * 1024, true)] {
        let long = "x".repeat(length);
        let argv = ["true".to_owned(), if env { String::new() } else { long.clone() }];
        let mut spec = spec(Program::Argv(argv.to_vec()));
        if env {
            spec.env.insert("LONG".to_owned(), long);
        }
        let (id, nonce) = (TaskId::new(), Nonce::new());
        match bench.bridge.launch(id, nonce, &spec, SETTINGS, &[]).await {
            Err(RuntimeError::NotStarted { reason: NotStarted::TooLarge, .. }) => {}
            Err(error) => panic!("{length}: {error}"),
            Ok(attachment) => match read(attachment).await.ending {
                Some(Ending::FailedToStart { failure, errno, .. }) => {
                    assert_eq!((failure, errno), (StartFailure::ArgumentsTooLarge, Some(7)), "{length}");
                }
                other => panic!("{length}: {other:?}"),
            },
        }
    }
    let argv = ["printf", "%s", &"x".repeat(120 * 1024)].map(str::to_owned).to_vec();
    assert_eq!(bench.run(&spec(Program::Argv(argv))).await.text().len(), 120 * 1024);
}

pub async fn any_execve_name_is_a_valid_variable(bench: Bench) {
    let names = ["a.b-c", "1st", "É x", "-u", "%s", "A\nB", "$(exit 3)", "'", "--"];
    let env = names.into_iter().map(|name| (name.to_owned(), format!("value of {name}"))).collect();
    // Not through a shell: a shell may drop entries whose names it considers invalid.
    let spec = TaskSpec { env, ..spec(Program::Argv(vec!["env".to_owned()])) };
    let printed = bench.run(&spec).await.text();
    for name in names {
        assert!(printed.contains(&format!("{name}=value of {name}\n")), "{name:?}: {printed}");
    }
}

pub async fn workdir_and_shell_are_as_requested(bench: Bench) {
    bench.sh("mkdir -p '/tmp/a b'").await;
    let ran = bench.run(&TaskSpec { workdir: Some("/tmp/a b".to_owned()), ..text("pwd") }).await;
    assert_eq!(ran.text(), "/tmp/a b\n");
    let has_bash = bench.sh("command -v bash").await.contains("bash");
    let ran = bench.run(&text("echo \"${BASH_VERSION:+bash}\"")).await;
    assert_eq!(ran.text(), if has_bash { "bash\n" } else { "\n" });
    let sh = spec(Program::Shell { text: "echo \"${BASH_VERSION:+bash}\"".to_owned(), shell: Some("sh".to_owned()) });
    assert_eq!(bench.run(&sh).await.text(), "\n");
}

pub async fn pkill_by_own_arguments_spares_the_supervisor(bench: Bench) {
    let script = "for p in /proc/[0-9]*; do p=${p#/proc/}; if [ $p != $$ ] && grep -q need[l]e /proc/$p/cmdline; then kill -9 $p; fi; done; \
                  : needle; exit 5";
    let (id, nonce, _attachment) = bench.launch(&text(script)).await;
    let finding = bench.probe_until(id, nonce, "the exit file", |finding| finding.sentinel != Sentinel::Absent).await;
    assert_eq!(finding.sentinel, Sentinel::Complete(Ending::Exited(5)));
}

pub async fn command_sees_an_unmodified_sandbox(bench: Bench) {
    let alone = bench.sh("umask; ulimit -n; trap; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ | sort").await;
    let spec = TaskSpec { env: Default::default(), ..spec(Program::Argv(
        ["sh", "-c", "umask; ulimit -n; trap; env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ | sort; ls /proc/self/fd | sort -n | tr '\\n' ' '; env | grep ERRAND | cut -d= -f1"].map(str::to_owned).to_vec())) };
    let ran = bench.run(&spec).await;
    assert_eq!(ran.text(), format!("{alone}0 1 2 3 ERRAND_TASK_ID\n"), "3 is the directory being listed");
}
