//! Beginning a life of a sandbox.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use prost::Message as _;
use rustix::{fs::FlockOperation, io::Errno, process::Signal};

use super::{
    arguments::{self, INIT},
    home::refused,
    init,
    network::Network,
    places::{Places, etc_directory},
    processes::{INFO, Process},
    proto::{LaunchSandbox, Owner, View},
    record::{Life, Record},
    seccomp,
};
use errand_runtime::RuntimeError;

/// The file whose lock is held as long as the sandbox lives, by its init and by whoever makes that.
const ALIVE: &str = "alive";
/// What the launcher is told.
const REQUEST: &str = "launch";
/// What bubblewrap is told.
const ARGUMENTS: &str = "arguments";
/// The filter of system calls.
const FILTER: &str = "filter";
/// What both say.
const LOG: &str = "log";
/// The most of that which an error repeats, in bytes.
const WORDS: u64 = 2000;
/// How long making a sandbox may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// How long somebody who only looks may hold the lock, or a process that is being made may hold the program.
const LOOK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// What a life is begun with.
pub(super) struct Launch<'a> {
    pub(super) directory: &'a Path,
    pub(super) record: &'a Record,
    /// Private addresses that it may reach.
    pub(super) allow_addresses: &'a [String],
    /// The program that is launcher and init.
    pub(super) program: &'a Path,
    /// bubblewrap.
    pub(super) bwrap: &'a Path,
    /// Whether that one can limit what a file system in memory holds.
    pub(super) limits_memory_files: bool,
    /// Files into which the sandbox's processes are written.
    pub(super) cgroup_procs: Vec<PathBuf>,
    /// The most processes, where no cgroup limits them.
    pub(super) processes: Option<u64>,
    /// The largest file, where no disk limits them.
    pub(super) file_bytes: u64,
}

/// Whether a sandbox lives, or is just being made.
pub(super) fn is_alive(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(ALIVE)) else { return false };
    // Shared, so that two who look do not see each other.
    matches!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}

impl Launch<'_> {
    /// Begins a life and waits until its init answers.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] with the words of what stood in the way. Nothing of that life is left then.
    pub(super) fn run(self) -> Result<(), RuntimeError> {
        let directory = self.directory;
        let network = Network::of(&self.record.spec.network_mode)?;
        let life = Life::begin(directory).map_err(|error| refused("the name of a life", &error))?;
        let request = self.prepare(&network, &life)?;
        let begun = self.begin(&request, &life).map_err(|error| refused("the launcher", &error));
        let alive = begun.and_then(|()| {
            init::greet(directory, LIMIT).map_err(|error| RuntimeError::Refused { detail: words(directory, &error) })
        });
        if alive.is_err() {
            for process in Process::keepers(&life) {
                process.signal(Signal::KILL);
                let _ = process.ended_within(LIMIT);
            }
        }
        alive
    }

    /// Writes what the launcher and bubblewrap read, and returns where.
    fn prepare(&self, network: &Network, life: &Life) -> Result<PathBuf, RuntimeError> {
        let (directory, record) = (self.directory, self.record);
        let places = Places::of(directory, record, self.program).map_err(|error| refused("the files", &error))?;
        // The program's file is named by a digest of it, on the machine as in the sandbox.
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        let guest = arguments::guest_path(&name);
        let arguments = arguments::compose(record, &places, network, self.limits_memory_files, &guest)
            .map_err(|error| refused("the arguments", &error))?;
        let filter = seccomp::program().map_err(|error| refused("the filter of system calls", &error))?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut command = vec![text(self.bwrap), "--args".to_owned(), arguments::ARGUMENTS.to_owned(), "--".to_owned()];
        command.extend([INIT.to_owned(), "init".to_owned(), life.0.clone()]);
        command.extend(self.processes.map(|processes| processes.to_string()));
        let request = LaunchSandbox {
            cgroup_procs: self.cgroup_procs.iter().map(|path| text(path)).collect(),
            owner: record.owner.map(|number| Owner { uid: number, gid: number }),
            view: places.view.map(|view| View { tun: matches!(network, Network::Bridge(_)), ..view }),
            file_bytes: self.file_bytes,
            info: text(&directory.join(INFO)),
            filter: text(&directory.join(FILTER)),
            arguments: text(&directory.join(ARGUMENTS)),
            connector: network.connector(),
            fence: Some(network.fence(self.allow_addresses)),
            command,
            copy: places.copy,
        };
        let write = || -> io::Result<PathBuf> {
            let etc = etc_directory(directory);
            let mut listed = record.root.etc();
            listed.add(record.user.0, record.user.1);
            make_readable(&etc)?;
            listed.write(&etc, &arguments::hostname(record.bot()), &network.resolver())?;
            fs::write(directory.join(ARGUMENTS), arguments)?;
            fs::write(directory.join(FILTER), filter)?;
            fs::write(directory.join(REQUEST), request.encode_to_vec())?;
            Ok(directory.join(REQUEST))
        };
        write().map_err(|error| refused("what the launcher reads", &error))
    }

    /// Starts the launcher. From then on it, and what it becomes, holds the lock.
    fn begin(&self, request: &Path, life: &Life) -> io::Result<()> {
        let directory = self.directory;
        let listener = init::listen(directory)?;
        let alive = lock(&directory.join(ALIVE))?;
        let log = File::create(directory.join(LOG))?;
        let mut command = tokio::process::Command::new(self.program);
        command.arg("launch").arg(request).arg(&life.0).env_clear().current_dir("/");
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::from(alive)).stderr(Stdio::from(log));
        let deadline = Instant::now() + LOOK;
        loop {
            match command.spawn() {
                // It outlives this server. Whatever ends before that does is reaped.
                Ok(_child) => return Ok(()),
                // The program was written just now, and what another thread has started meanwhile still has it open for writing, until it
                // executes its own.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn make_readable(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
}

/// Takes the lock. Whoever has it now is only looking: nobody begins a life of a sandbox that lives.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).read(true).open(path)?;
    let deadline = Instant::now() + LOOK;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What was said while the sandbox was made, or the error where nothing was.
fn words(directory: &Path, error: &io::Error) -> String {
    let read = || -> io::Result<String> {
        let mut log = File::open(directory.join(LOG))?;
        let end = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(end.saturating_sub(WORDS)))?;
        let mut said = Vec::new();
        log.take(WORDS).read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    };
    match read() {
        Ok(said) if !said.is_empty() => format!("the sandbox cannot be made: {said}"),
        _ => format!("the sandbox cannot be made: {error}"),
    }
}
