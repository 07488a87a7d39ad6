//! The real server: the program itself as a child process, on its own data directory.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use errand_task::TaskId;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    client::{Link, Session},
    docker::Image,
    ground::Ground,
    wait::{LIMIT, eventually, within},
};

/// A server. Dropping it kills the server and removes its sandboxes.
pub struct Server {
    /// The place of its sandboxes, to inspect there what the server did.
    pub ground: Ground,
    /// The arguments after `serve` and the two that this type sets.
    pub flags: Vec<String>,
    directory: TempDir,
    /// The prefix of every bot's name, so that tests share an engine and nothing else.
    prefix: String,
    child: Option<Child>,
    link: Link,
    /// The runtime that the server reported.
    pub runtime: String,
    url: String,
    log: Arc<Mutex<String>>,
}

/// A server that exited by itself, or could not start.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard error.
    pub stderr: String,
}

impl Server {
    /// A running server whose sandboxes are made of `image`. None: the engine or the image is missing, and the test is skipped.
    pub async fn on(image: Image, flags: &[&str]) -> Option<Self> {
        let mut server = Self::prepare(image).await?;
        server.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        server.launch().await;
        Some(server)
    }

    /// A server that is not started yet.
    pub async fn prepare(image: Image) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let ground = Ground::of(image, &data_dir(&directory)).await?;
        let id = TaskId::new().to_string();
        Some(Self {
            // No test needs a network, and an engine creates a container faster without one.
            flags: ["--image", &ground.image(image), "--network-mode", "none"].map(str::to_owned).to_vec(),
            ground,
            directory,
            // The end of the id is random; its beginning is the time.
            prefix: format!("test-{}", &id[id.len() - 12..]),
            child: None,
            link: Link::default(),
            runtime: String::new(),
            url: String::new(),
            log: Arc::default(),
        })
    }

    /// The directory of the server's database. Tests keep other files beside the database.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn data_dir(&self) -> PathBuf {
        data_dir(&self.directory)
    }

    /// The path of the server's database.
    pub fn database(&self) -> PathBuf {
        self.data_dir().join("errand.db")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ERRAND_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(self.data_dir()).args(&self.flags);
        // The flag `--runtime` overrides this variable.
        command.env("ERRAND_RUNTIME", self.ground.name());
        command.env("ERRAND_LOG_LEVEL", "info,errand=debug");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Changes a flag's value from the next start on.
    pub fn set(&mut self, flag: &str, value: &str) {
        match self.flags.iter().position(|word| word == flag) {
            Some(position) => self.flags[position + 1] = value.to_owned(),
            None => self.flags.extend([flag, value].map(str::to_owned)),
        }
    }

    /// Starts the server and waits until its health is serving.
    pub async fn launch(&mut self) {
        self.spawn().await;
        self.serving().await;
    }

    /// Starts the server and waits until it listens.
    pub async fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server runs");
        let mut child = self.command().spawn().unwrap();
        let (said, heard) = mpsc::channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let log = Arc::clone(&self.log);
        thread::spawn(move || keep(stderr, &log));
        self.child = Some(child);
        let line = within(LIMIT, "the server says where it listens", async || match heard.try_recv() {
            Ok(line) => Some(line),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => panic!("the server ended before it listened"),
        })
        .await;
        let address = line
            .strip_prefix(&format!("errand {} (", env!("CARGO_PKG_VERSION")))
            .and_then(|rest| rest.split_once(") listening on "));
        let (runtime, address) = address.unwrap_or_else(|| panic!("not what a server says: {line}"));
        self.runtime = runtime.to_owned();
        self.url = format!("http://{address}");
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        self.link.set(endpoint.connect_lazy());
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Waits until the server's health is serving.
    pub async fn serving(&self) {
        eventually("the server serves", async || (self.health("").await == Some(ServingStatus::Serving)).then_some(()))
            .await;
    }

    /// The health of a service; none when the server does not answer.
    pub async fn health(&self, service: &str) -> Option<ServingStatus> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(self.channel()).check(request).await.ok()?;
        Some(answer.into_inner().status())
    }

    /// Runs the server until it exits: it is not expected to start. `arguments` come last.
    pub async fn fails(&self, arguments: &[&str]) -> Ended {
        let mut child = self.command().args(arguments).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let reading = thread::spawn(move || {
            let log = Mutex::default();
            keep(stderr, &log);
            log.into_inner().unwrap_or_else(PoisonError::into_inner)
        });
        let deadline = Instant::now() + LIMIT;
        let status = eventually("the server gives up", async || {
            if Instant::now() + Duration::from_secs(1) > deadline {
                let _ = child.kill();
            }
            child.try_wait().unwrap()
        })
        .await;
        Ended { status, stderr: reading.join().unwrap() }
    }

    /// Kills the server, as a crash would: it cannot clean up.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the server to exit, and waits for that.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.child.take().expect("the server runs");
        let begun = Instant::now();
        let signal = format!("kill -TERM {}", child.id());
        assert!(Command::new("sh").args(["-c", &signal]).status().unwrap().success());
        let status = eventually("the server ends", async || child.try_wait().unwrap()).await;
        (status, begun.elapsed())
    }

    /// Sends the server a signal, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("the server runs");
        let command = format!("kill -{name} {}", child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// Kills the server and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch().await;
    }

    /// The server's log since its first start.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server's current address.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// A channel to the server's current address.
    pub fn channel(&self) -> Channel {
        self.link.channel()
    }

    /// The full name of a bot of this test.
    pub fn bot(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A session of a bot. It keeps working after a restart of the server.
    pub fn session(&self, bot: &str, session: &str) -> Session {
        Session::new(self.ground.clone(), self.link.clone(), self.bot(bot), session.to_owned(), None)
    }

    /// A session that authenticates with a token.
    pub fn session_with(&self, token: &str, bot: &str, session: &str) -> Session {
        Session::new(self.ground.clone(), self.link.clone(), self.bot(bot), session.to_owned(), Some(token.to_owned()))
    }

    /// The names of this server's containers, running or not.
    pub async fn containers(&self) -> Vec<String> {
        self.ground.sandboxes(&self.prefix, &self.data_dir()).await
    }

    /// Creates a file beside the database and returns its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

/// Collects the output until it ends.
fn keep(mut from: impl Read, log: &Mutex<String>) {
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

fn data_dir(directory: &TempDir) -> PathBuf {
    directory.path().join("data")
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let skip = log.len().saturating_sub(20_000);
            let skip = (skip..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or_default();
            eprintln!("--- the server's log ---\n{}--- end ---", &log[skip..]);
        }
        let (ground, prefix, data) = (self.ground.clone(), self.prefix.clone(), self.data_dir());
        // A destructor cannot block on the async runtime that it runs on.
        let removal = thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                // Uses a client of its own: the test's client may belong to the other async runtime.
                let ground = ground.again();
                let sandboxes = ground.sandboxes(&prefix, &data).await;
                futures_util::future::join_all(sandboxes.iter().map(|sandbox| ground.clear(sandbox))).await;
            });
        });
        if removal.join().is_err() {
            eprintln!("a sandbox was not removed");
        }
    }
}
