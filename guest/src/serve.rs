//! The bridge process: one per sandbox. It listens on its socket and speaks gRPC on the streams that connections pass to it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use rustix::{
    fs::FlockOperation,
    io::Errno,
    process::{Pid, WaitOptions, waitpid},
};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    sync::watch,
};

use crate::{
    connect::{RETIRES, SOCKET, TAKEN, directory},
    descriptors,
    files::Files,
    own_file,
    service::{Bridge, Services},
    spawner::Spawner,
    streams_io::Streams,
};

/// How long a new bridge process waits for an old one to exit.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(2);
/// How long a retiring bridge process lets running calls go on.
const GOODBYE: Duration = Duration::from_millis(200);
/// Flow-control windows in bytes: how much the server may send before it is consumed, per connection and per call. The connection's window
/// is the largest possible because all calls share it: uploads waiting to be written must not stall the other calls.
const CONNECTION_WINDOW: u32 = i32::MAX.cast_unsigned();
const STREAM_WINDOW: u32 = 256 * 1024;
/// The exit code of a process that cannot become the bridge process.
const FAILED: i32 = 1;
/// The file in the bridge directory to which bridge processes write their errors.
const LOG: &str = "log";
/// The most bytes of that file that are repeated to the caller.
const NOTE_LIMIT: u64 = 1024;
/// How long the accept loop pauses when the limit of open files is reached.
const BREATH: Duration = Duration::from_millis(100);
/// The most concurrent calls: one per followed task, and some more.
const CALLS: u32 = 100_000;

/// Starts a bridge process that outlives this process. The new process exits at once when another one is running.
///
/// # Errors
/// When no process can be forked.
pub(crate) fn start(root: &Path, generation: u32) -> io::Result<Pid> {
    // SAFETY: this process has one thread, so the child may call any function.
    #[allow(unsafe_code)]
    match unsafe { libc::fork() } {
        0 => {
            let _ = rustix::process::setsid();
            let failed = run(root, generation).err().filter(|error| error.kind() != io::ErrorKind::AddrInUse);
            if let Some(error) = &failed {
                note(&directory(root), error);
            }
            std::process::exit(if failed.is_some() { FAILED } else { 0 })
        }
        -1 => Err(io::Error::last_os_error()),
        pid => Pid::from_raw(pid).ok_or_else(|| Errno::SRCH.into()),
    }
}

/// What became of a bridge process that this process started.
pub(crate) enum Started {
    Runs,
    /// Another bridge process was running, or something killed it.
    Gone,
    /// It cannot be the bridge process and has logged the reason.
    Failed,
}

pub(crate) fn look_after(bridge: Pid) -> Started {
    match waitpid(Some(bridge), WaitOptions::NOHANG) {
        Ok(None) => Started::Runs,
        Ok(Some((_, status))) if status.exit_status() == Some(FAILED) => Started::Failed,
        // Where children are reaped automatically, the kernel no longer knows an exited child.
        Ok(Some(_)) | Err(_) => Started::Gone,
    }
}

/// Logs why this bridge process exits, for the process that started it.
fn note(directory: &Path, error: &io::Error) {
    // If even the log cannot be written, nothing can report the error.
    let _ = open_log(directory).and_then(|mut log| writeln!(log, "{error}"));
}

/// The last line that a bridge process logged.
pub(crate) fn last_note(directory: &Path) -> Option<String> {
    let mut log = own_file::open(&directory.join(LOG)).ok()?;
    let size = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(size.saturating_sub(NOTE_LIMIT))).ok()?;
    let mut note = Vec::new();
    log.take(NOTE_LIMIT).read_to_end(&mut note).ok()?;
    String::from_utf8_lossy(&note).lines().last().map(str::to_owned)
}

fn open_log(directory: &Path) -> io::Result<File> {
    own_file::append(&directory.join(LOG))
}

fn run(root: &Path, generation: u32) -> io::Result<()> {
    descriptors::close_on_exec();
    let directory = directory(root);
    let _lock = lock(&directory)?;
    detach(&directory)?;
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077)).bits();
    let _ = fs::remove_file(directory.join(SOCKET));
    let listener = errand_os::socket::bind(&directory, SOCKET)?;
    listener.set_nonblocking(true)?;
    remove_others(&directory);
    let spawner = Spawner::start(root, umask)?;
    // Files that the guest writes for others get the permissions that the sandbox's umask allows.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept(root.to_owned(), generation, listener, spawner))
}

/// Removes the binaries of other bridge versions. A running process keeps its removed binary, and a server that needs one uploads it again.
fn remove_others(directory: &Path) {
    let Ok(own) = std::env::current_exe() else { return };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_binary(&entry.file_name()) && !is_name_of(&own, &entry.file_name())) {
        // A binary that stays costs disk space, nothing else.
        let _ = fs::remove_file(entry.path());
    }
}

/// Whether the running program has this file name. The kernel appends ` (deleted)` to the name once another server has replaced the file
/// with an identical one.
fn is_name_of(program: &Path, name: &OsStr) -> bool {
    let own = program.file_name().unwrap_or_default().as_encoded_bytes();
    own.strip_suffix(b" (deleted)").unwrap_or(own) == name.as_encoded_bytes()
}

/// Whether this is the name of a complete bridge binary, and not of one that a server is still writing.
fn is_binary(name: &OsStr) -> bool {
    let digest = name.as_encoded_bytes().strip_prefix(b"errand-bridge-");
    digest.is_some_and(|digest| digest.iter().all(u8::is_ascii_hexdigit))
}

/// Takes the lock. The process that holds the lock is the sandbox's only bridge process.
fn lock(directory: &Path) -> io::Result<File> {
    let lock = own_file::keep(&directory.join("lock"))?;
    let deadline = std::time::Instant::now() + LOCK_LIMIT;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            // Another bridge process is running or about to exit. Its socket tells which.
            Err(_) if errand_os::socket::connect(directory, SOCKET).is_ok() => {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Err(_) if std::time::Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Detaches from the exec that started this process.
fn detach(directory: &Path) -> io::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    let log = open_log(directory)?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&log)?;
    let _ = rustix::thread::set_name(c"errand-bridge");
    Ok(())
}

async fn accept(
    root: PathBuf,
    generation: u32,
    listener: std::os::unix::net::UnixListener,
    spawner: Spawner,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let retiring = watch::Sender::new(false);
    let bridge = Arc::new(Bridge::new(root, generation, spawner, retiring.subscribe()));
    let files = Arc::new(Files::new());
    let retiring = Arc::new(retiring);
    let mut told = retiring.subscribe();
    loop {
        let connection = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = told.wait_for(|retiring| *retiring) => break,
        };
        let Ok((connection, _)) = connection else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let services = Services::new(Arc::clone(&bridge), Arc::clone(&files));
        let retiring = Arc::clone(&retiring);
        tokio::spawn(async move {
            let _ = greet(connection, generation, services, &retiring).await;
        });
    }
    // A connection that comes now finds no listener and starts the newer bridge process, which waits for the lock.
    drop(listener);
    tokio::time::sleep(GOODBYE).await;
    Ok(())
}

/// Takes the streams that a connection passes, and speaks gRPC on them.
async fn greet(
    mut connection: UnixStream,
    generation: u32,
    services: Services,
    retiring: &watch::Sender<bool>,
) -> io::Result<()> {
    let (wanted, stdin, stdout) = receive(&connection).await?;
    if wanted > generation {
        retiring.send_replace(true);
        return connection.write_all(&[RETIRES]).await;
    }
    connection.write_all(&[TAKEN]).await?;
    let streams = Streams::new(stdin, stdout)?;
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_concurrent_streams(CALLS)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .serve_connection(TokioIo::new(streams), TowerToHyperService::new(services))
        .await;
    Ok(())
}

async fn receive(connection: &UnixStream) -> io::Result<(u32, OwnedFd, OwnedFd)> {
    loop {
        connection.readable().await?;
        let received = connection.try_io(Interest::READABLE, || receive_now(connection.as_fd()));
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

fn receive_now(connection: impl AsFd) -> io::Result<(u32, OwnedFd, OwnedFd)> {
    let mut generation = [0; 4];
    let mut descriptors = Vec::new();
    let received = errand_os::rights::receive(connection, &mut generation, &mut descriptors)?;
    match (received, <[OwnedFd; 2]>::try_from(descriptors)) {
        (4, Ok([stdin, stdout])) => Ok((u32::from_le_bytes(generation), stdin, stdout)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_identical_binary_counts_as_own() {
        let name = OsStr::new("errand-bridge-ab");
        for own in ["/tmp/x/errand-bridge-ab", "/tmp/x/errand-bridge-ab (deleted)"] {
            assert!(is_name_of(Path::new(own), name), "{own}");
        }
        assert!(!is_name_of(Path::new("/tmp/x/errand-bridge-cd"), name));
    }

    #[test]
    fn incomplete_uploads_do_not_count_as_binaries() {
        let is = |name: &str| is_binary(OsStr::new(name));
        assert!(is("errand-bridge-0123456789ab"));
        assert!(!is("errand-bridge-0123456789ab.part") && !is("errand-bridge-0123456789ab.17") && !is("log"));
    }
}
