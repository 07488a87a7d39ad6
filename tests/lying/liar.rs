//! A liar in place of a bridge, and every request that a server can make to it.

use std::{
    fmt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use bollard::{Docker, models::HostConfig};
use errand_proto::v1::*;
use errand_runtime::Runtime as _;
use futures_util::stream;

use super::catalogue::Lie;
use crate::support::{
    client::{Session, bytes, duration, ended, is_terminal},
    docker::{self, Image, host_config},
    server::Server,
};

/// The directory where the server looks for the bridge in a container that the server did not create.
const DIRECTORY: &str = "/tmp/errand/.bridge";
/// How long a client waits for an answer that a lie may withhold.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a liar's task may take to end after it is stopped.
const END_LIMIT: Duration = Duration::from_secs(120);
/// The CPU limit of one liar in billionths of a processor: only the server's own cost matters, and all of them share one machine.
const PROCESSORS: i64 = 100_000_000;
/// A liar's memory limit in bytes.
const MEMORY: i64 = 256 << 20;

/// Builds the liar and returns its binary. The liar is not part of the server's package, and is static, as the guest is.
pub fn program() -> Vec<u8> {
    // TARGET/PROFILE/deps/PROGRAM
    let own = std::env::current_exe().unwrap();
    let target: PathBuf = own.ancestors().nth(3).unwrap().to_owned();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--quiet", "--locked", "--package", "errand-test-liar", "--target-dir"]).arg(&target);
    cargo.args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]);
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
    assert!(built.success(), "cargo build --package errand-test-liar: {built}");
    std::fs::read(target.join("debug/errand-test-liar")).unwrap()
}

/// What every liar needs.
pub struct Liars<'a> {
    pub server: &'a Server,
    pub docker: Docker,
    pub program: Vec<u8>,
}

/// A liar in its container.
pub struct Placed {
    lie: &'static Lie,
    session: Session,
    /// The container is removed when this is dropped.
    #[allow(dead_code, reason = "it is only kept")]
    container: docker::Container,
}

/// The result of one lie.
pub struct Faced {
    lie: &'static str,
    /// The violation, if there was one.
    wrong: Option<String>,
    outcome: String,
    /// The time from the first request to the end of the task.
    pub took: Duration,
}

impl Faced {
    pub fn wrong(&self) -> Option<String> {
        self.wrong.as_ref().map(|wrong| format!("{}: {wrong}", self.lie))
    }
}

impl fmt::Display for Faced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22} {:>6.1?}  {}", self.lie, self.took, self.outcome)
    }
}

impl Liars<'_> {
    /// A container in which a liar waits to tell a lie; `number` tells apart several with the same lie.
    pub async fn place_as(&self, lie: &'static Lie, number: usize) -> Placed {
        let container = docker::container(&self.docker, Image::Busybox, |body| {
            let limits = HostConfig { nano_cpus: Some(PROCESSORS), memory: Some(MEMORY), ..host_config() };
            body.host_config = Some(limits);
        })
        .await;
        let runtime = docker::runtime();
        for (name, content, mode) in
            [(errand::guest::program().name(), self.program.as_slice(), 0o700), ("lie", lie.name.as_bytes(), 0o600)]
        {
            runtime.put_file(&container.id, &format!("{DIRECTORY}/{name}"), content, mode).await.unwrap();
        }
        let session = self.server.session_with("lying", &format!("{}-{number}", lie.name), "session");
        session.adopt(&container.id).await.unwrap();
        Placed { lie, session, container }
    }
}

impl Placed {
    /// Lets the liar tell its lie, sends every request, and stops the liar's task.
    pub async fn face(&self) -> Faced {
        let (lie, session) = (self.lie, &self.session);
        let begun = Instant::now();
        let watches = vec![OutputWatch { kind: Some(output_watch::Kind::Substring("word".to_owned())), once: false }];
        let request = StartTaskRequest { stdin: true, watches, ..session.request("sleep 600") };
        let task = match session.try_start(request).await {
            Ok(started) => started.task.unwrap().task_id,
            // A bridge that never sends its greeting gets no task.
            Err(refusal) => {
                ask_about_files(session).await;
                let outcome = format!("not started: {:?}", refusal.code());
                return Faced { lie: lie.name, wrong: None, outcome, took: begun.elapsed() };
            }
        };
        tokio::join!(ask_about(session, &task), ask_about_files(session));
        // The task has to end within its limit; the answer to this call comes no sooner.
        let stop = StopTaskRequest { task_id: task.clone(), grace: duration(0.0), ..Default::default() };
        let _ = tokio::time::timeout(END_LIMIT, session.tasks().stop_task(stop)).await;
        let deadline = Instant::now() + END_LIMIT;
        let last = loop {
            let last = session.get(&task).await;
            if is_terminal(last.status()) || Instant::now() > deadline {
                break last;
            }
            let wait = WaitTaskRequest { task_id: task.clone(), timeout: duration(10.0), ..Default::default() };
            let _ = session.tasks().wait_task(wait).await;
        };
        let outcome = ended(&last);
        // At most one notification about matches in 15 s, whatever was claimed.
        let told = session.told().await;
        let matched = told.iter().filter(|told| told.watch.is_some()).count() as u64;
        let most = 1 + begun.elapsed().as_secs() / 15;
        let wrong = if matched > most {
            Some(format!("{matched} notifications told of matches in {:?}", begun.elapsed()))
        } else if !is_terminal(last.status()) {
            Some(format!("its task has not ended within {END_LIMIT:?}: {outcome}"))
        } else if outcome.starts_with("exited") && !lie.may_exit {
            Some(format!("its task {outcome}, which was never said of it"))
        } else {
            None
        };
        // A later report does not change a final task.
        let request = ListTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
        session.tasks().list_tasks(request).await.unwrap();
        Faced { lie: lie.name, wrong, outcome, took: begun.elapsed() }
    }
}

/// Waits for an answer as long as a client would. The answer is ignored: only the request matters.
async fn patiently(asking: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(PATIENCE, asking).await;
}

/// Sends every request about a task.
async fn ask_about(session: &Session, task: &str) {
    use read_output_request::Selection;
    let read = |selection| {
        let request = ReadOutputRequest { task_id: task.to_owned(), selection: Some(selection), ..Default::default() };
        patiently(async move {
            let _ = session.tasks().read_output(request).await;
        })
    };
    let write = |offset, data: &'static [u8]| {
        let request = WriteInputRequest { task_id: task.to_owned(), offset, data: data.into(), ..Default::default() };
        patiently(async move {
            let _ = session.tasks().write_input(request).await;
        })
    };
    let resize = ResizeTerminalRequest {
        task_id: task.to_owned(),
        size: Some(TerminalSize { rows: 9, columns: 9 }),
        ..Default::default()
    };
    let listening =
        WaitTaskRequest { task_id: task.to_owned(), timeout: duration(2.0), until_listening: 80, ..Default::default() };
    let pattern = Some(line_search::Pattern::Substring("word".to_owned()));
    let search = LineSearch { pattern, before: 1, ..Default::default() };
    let signal = SignalTaskRequest { task_id: task.to_owned(), signal: "CONT".to_owned(), ..Default::default() };
    tokio::join!(
        follow(session, task),
        read(Selection::Range(OutputRange { offset: 0, limit: 1 << 20 })),
        read(Selection::Range(OutputRange { offset: 3, limit: 100 })),
        read(Selection::Tail(OutputTail { limit: 1000 })),
        read(Selection::Lines(LineSelection { offset: -9, ..Default::default() })),
        read(Selection::Grep(search)),
        write(None, b"word\n"),
        write(Some(0), b"word\n"),
        patiently(async {
            let _ = session.tasks().resize_terminal(resize).await;
        }),
        patiently(async {
            let _ = session.tasks().wait_task(listening).await;
        }),
        patiently(async {
            let _ = session.tasks().signal_task(signal).await;
        }),
    );
    patiently(async {
        session.get(task).await;
    })
    .await;
}

/// Follows a task's output, and checks that positions only increase.
async fn follow(session: &Session, task: &str) {
    use stream_output_response::Event;
    patiently(async {
        let request = StreamOutputRequest { task_id: task.to_owned(), ..Default::default() };
        let Ok(said) = session.tasks().stream_output(request).await else { return };
        let mut said = said.into_inner();
        let mut end = 0;
        while let Ok(Some(StreamOutputResponse { event: Some(Event::Output(part)) })) = said.message().await {
            assert!(part.offset >= end, "output at {} comes after output up to {end}", part.offset);
            end = part.offset + i64::try_from(bytes(&part).len()).unwrap();
        }
    })
    .await;
}

/// Sends every request about files.
async fn ask_about_files(session: &Session) {
    use write_file_request::Part;
    let (bot_id, path) = (session.bot.clone(), "/tmp/file".to_owned());
    let list = |page_token: &str| ListDirectoryRequest {
        bot_id: bot_id.clone(),
        path: "/tmp".to_owned(),
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let read = |limit| ReadFileRequest { bot_id: bot_id.clone(), path: path.clone(), limit, ..Default::default() };
    let stat = StatFileRequest { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
    let remove = RemoveFileRequest { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
    let head = WriteFileHead { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
    let content = std::iter::repeat_n(Part::Data(vec![b'x'; 256 << 10].into()), 64);
    let parts = std::iter::once(Part::Head(head)).chain(content).chain([Part::End(WriteFileEnd {})]);
    let parts = stream::iter(parts.map(|part| WriteFileRequest { part: Some(part) }));
    tokio::join!(
        patiently(async {
            let Ok(page) = session.sandboxes().list_directory(list("")).await else { return };
            let _ = session.sandboxes().list_directory(list(&page.into_inner().next_page_token)).await;
        }),
        read_file(session, read(0)),
        read_file(session, read(1000)),
        patiently(async {
            let _ = session.sandboxes().stat_file(stat).await;
        }),
        patiently(async {
            let _ = session.sandboxes().write_file(parts).await;
        }),
        patiently(async {
            let _ = session.sandboxes().remove_file(remove).await;
        }),
        ask_about_trees(session),
    );
}

/// Sends every request about directories.
async fn ask_about_trees(session: &Session) {
    use write_tree_request::Part;
    let (bot_id, path) = (session.bot.clone(), "/tmp/tree".to_owned());
    let make = MakeDirectoryRequest { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
    let rename = RenameFileRequest {
        bot_id: bot_id.clone(),
        path: path.clone(),
        new_path: "/tmp/new".to_owned(),
        ..Default::default()
    };
    let read = ReadTreeRequest { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
    let watch = WatchFilesRequest { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
    let head = WriteTreeHead { bot_id, path, ..Default::default() };
    let content = std::iter::repeat_n(Part::Data(vec![0; 256 << 10].into()), 64);
    let parts = std::iter::once(Part::Head(head)).chain(content).chain([Part::End(WriteTreeEnd {})]);
    let parts = stream::iter(parts.map(|part| WriteTreeRequest { part: Some(part) }));
    tokio::join!(
        patiently(async {
            let _ = session.sandboxes().make_directory(make).await;
        }),
        patiently(async {
            let _ = session.sandboxes().rename_file(rename).await;
        }),
        patiently(async {
            let Ok(said) = session.sandboxes().read_tree(read).await else { return };
            let mut said = said.into_inner();
            while let Ok(Some(_)) = said.message().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }),
        patiently(async {
            let _ = session.sandboxes().write_tree(parts).await;
        }),
        patiently(async {
            let Ok(said) = session.sandboxes().watch_files(watch).await else { return };
            let mut said = said.into_inner();
            while let Ok(Some(_)) = said.message().await {}
        }),
    );
}

/// Reads a file, slowly after its first piece.
async fn read_file(session: &Session, request: ReadFileRequest) {
    patiently(async {
        let Ok(said) = session.sandboxes().read_file(request).await else { return };
        let mut said = said.into_inner();
        while let Ok(Some(_)) = said.message().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
