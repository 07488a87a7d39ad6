//! Starts a sandbox: writes what the launcher and bubblewrap read, runs the launcher, and waits for the init.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use prost::Message as _;
use rustix::{fs::FlockOperation, io::Errno, process::Signal};

use super::{
    arguments::{self, INIT},
    error::refused,
    init,
    layout::{Layout, etc_directory},
    network::Network,
    processes::{INFO, Process},
    proto::{LaunchSandbox, Owner, View},
    record::{IncarnationId, Record},
    seccomp,
};
use errand_runtime::RuntimeError;

/// The file that is locked while the sandbox runs: by the launcher and bubblewrap during the start, then by the init.
const ALIVE: &str = "alive";
/// The file with the launcher's request.
const REQUEST: &str = "launch";
/// The file with bubblewrap's arguments.
const ARGUMENTS: &str = "arguments";
/// The file with the filter of system calls.
const FILTER: &str = "filter";
/// The file with the standard error of the launcher and bubblewrap.
const LOG: &str = "log";
/// How much of the log's end an error quotes, in bytes.
const LOG_EXCERPT: u64 = 2000;
/// How long a start may take on a busy host.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long to retry when another thread holds [`ALIVE`] for a check, or has the guest's program open for writing.
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// Everything that a start depends on.
pub(super) struct SandboxStart<'a> {
    pub(super) directory: &'a Path,
    pub(super) record: &'a Record,
    /// Ranges of private addresses that the sandbox may reach.
    pub(super) allow_addresses: &'a [String],
    /// The path of the guest, which is both launcher and init.
    pub(super) guest: &'a Path,
    /// The path of bubblewrap.
    pub(super) bwrap: &'a Path,
    /// Whether this bubblewrap can limit the size of a tmpfs.
    pub(super) limits_tmpfs: bool,
    /// The files through which the launcher joins the sandbox's cgroup.
    pub(super) cgroup_procs: Vec<PathBuf>,
    /// The most processes of the sandbox's user; none when a cgroup limits them.
    pub(super) process_limit: Option<u64>,
    /// The largest file in bytes; 0 when a disk image limits all files together.
    pub(super) file_bytes: u64,
}

/// Whether a sandbox runs or is being started.
pub(super) fn is_alive(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(ALIVE)) else { return false };
    // A shared lock, so that two simultaneous checks do not take each other for the sandbox.
    matches!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}

impl SandboxStart<'_> {
    /// Starts the sandbox, and returns once its init answers.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] with the message of the program that failed. No process of the incarnation remains then.
    pub(super) fn run(self) -> Result<(), RuntimeError> {
        let directory = self.directory;
        let network = Network::of(&self.record.spec.network_mode)?;
        let incarnation = IncarnationId::begin(directory).map_err(|error| refused("the incarnation's id", &error))?;
        let request = self.prepare(&network, &incarnation)?;
        let launched = self.launch(&request, &incarnation).map_err(|error| refused("the launcher", &error));
        let started = launched.and_then(|()| {
            init::await_answer(directory, START_LIMIT)
                .map_err(|error| RuntimeError::Refused { detail: failure(directory, &error) })
        });
        if started.is_err() {
            for process in Process::keepers(&incarnation) {
                process.signal(Signal::KILL);
                let _ = process.ended_within(START_LIMIT);
            }
        }
        started
    }

    /// Writes the files that the launcher and bubblewrap read, and returns the path of the launcher's request.
    fn prepare(&self, network: &Network, incarnation: &IncarnationId) -> Result<PathBuf, RuntimeError> {
        let (directory, record) = (self.directory, self.record);
        let layout =
            Layout::of(directory, record, self.guest).map_err(|error| refused("the sandbox's directories", &error))?;
        // The name contains a digest of the program, and is the same on the host and inside.
        let name = self.guest.file_name().unwrap_or_default().to_string_lossy();
        let guest = arguments::guest_path(&name);
        let arguments = arguments::compose(record, &layout, network, self.limits_tmpfs, &guest)
            .map_err(|error| refused("the arguments of bubblewrap", &error))?;
        let filter = seccomp::program().map_err(|error| refused("the filter of system calls", &error))?;
        let request = self.request(layout, network, incarnation);
        let write = || -> io::Result<PathBuf> {
            let etc = etc_directory(directory);
            let mut users = record.root.etc();
            users.add(record.user.0, record.user.1);
            create_readable_directory(&etc)?;
            users.write(&etc, &arguments::hostname(record.bot()), &network.resolv_conf())?;
            fs::write(directory.join(ARGUMENTS), arguments)?;
            fs::write(directory.join(FILTER), filter)?;
            fs::write(directory.join(REQUEST), request.encode_to_vec())?;
            Ok(directory.join(REQUEST))
        };
        write().map_err(|error| refused("the launcher's files", &error))
    }

    /// The launcher's request.
    fn request(&self, layout: Layout, network: &Network, incarnation: &IncarnationId) -> LaunchSandbox {
        let directory = self.directory;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut command = vec![text(self.bwrap), "--args".to_owned(), arguments::ARGUMENTS.to_owned(), "--".to_owned()];
        command.extend([INIT.to_owned(), "init".to_owned(), incarnation.0.clone()]);
        command.extend(self.process_limit.map(|limit| limit.to_string()));
        LaunchSandbox {
            cgroup_procs: self.cgroup_procs.iter().map(|path| text(path)).collect(),
            owner: self.record.owner.map(|id| Owner { uid: id, gid: id }),
            view: layout.view.map(|view| View { tun: matches!(network, Network::Bridge(_)), ..view }),
            file_bytes: self.file_bytes,
            info: text(&directory.join(INFO)),
            filter: text(&directory.join(FILTER)),
            arguments: text(&directory.join(ARGUMENTS)),
            connector: network.connector(),
            fence: Some(network.fence(self.allow_addresses)),
            command,
            copy: layout.copy,
        }
    }

    /// Runs the launcher. From then on the launcher, and the programs that replace it, hold the lock of [`ALIVE`].
    fn launch(&self, request: &Path, incarnation: &IncarnationId) -> io::Result<()> {
        let directory = self.directory;
        let listener = init::listen(directory)?;
        let alive = lock(&directory.join(ALIVE))?;
        let log = File::create(directory.join(LOG))?;
        let mut command = tokio::process::Command::new(self.guest);
        command.arg("launch").arg(request).arg(&incarnation.0).env_clear().current_dir("/");
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::from(alive)).stderr(Stdio::from(log));
        let deadline = Instant::now() + RETRY_LIMIT;
        loop {
            match command.spawn() {
                // The sandbox outlives this server. If it ends earlier, tokio reaps the process.
                Ok(_child) => return Ok(()),
                // The program has just been written, and a process that another thread is starting inherited the writable descriptor. It
                // closes the descriptor when it executes its own program.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Makes a directory that every user can read.
fn create_readable_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
}

/// Locks a file. Another holder is only a check by [`is_alive`], because callers start a sandbox only if it does not run.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).read(true).open(path)?;
    let deadline = Instant::now() + RETRY_LIMIT;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Why the start failed: the end of the log, or the error if the log is empty.
fn failure(directory: &Path, error: &io::Error) -> String {
    let read = || -> io::Result<String> {
        let mut log = File::open(directory.join(LOG))?;
        let end = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(end.saturating_sub(LOG_EXCERPT)))?;
        let mut excerpt = Vec::new();
        log.take(LOG_EXCERPT).read_to_end(&mut excerpt)?;
        Ok(String::from_utf8_lossy(&excerpt).trim().to_owned())
    };
    match read() {
        Ok(excerpt) if !excerpt.is_empty() => format!("the sandbox did not start: {excerpt}"),
        _ => format!("the sandbox did not start: {error}"),
    }
}
