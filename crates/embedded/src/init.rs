//! The client of a sandbox's init. Each request has a connection of its own.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    time::Duration,
};

use rustix::io::Errno;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use super::proto::{Failed, Hello, InitRequest, InitResponse, Stage, Start, init_request::Kind, init_response};
use errand_os::{
    rights,
    socket::{self, ShortPath},
};
use errand_proto::frame;
use errand_runtime::{NotStarted, RuntimeError};
use prost::Message as _;

/// The socket's name in the sandbox's directory.
const SOCKET: &str = "init.sock";
/// The largest answer that is accepted, in bytes.
const ANSWER_LIMIT: usize = 4096;
/// How long a request may take. The init answers at once, but the host may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// How long to retry a connection while the init's queue of connections is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// Binds the socket that the init will accept connections on.
pub(super) fn listen(directory: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    socket::bind(directory, SOCKET)
}

/// Waits until the init of a starting sandbox answers.
///
/// # Errors
/// When the start failed, or there is no answer within `limit`.
pub(super) fn await_answer(directory: &Path, limit: Duration) -> io::Result<()> {
    let mut socket = std::os::unix::net::UnixStream::connect(ShortPath::of(directory, SOCKET)?)?;
    socket.set_read_timeout(Some(limit))?;
    socket.write_all(&frame::encode(&InitRequest { kind: Some(Kind::Hello(Hello {})) }))?;
    let mut head = [0; frame::HEAD];
    socket.read_exact(&mut head)?;
    let mut body = vec![0; frame::size(head, ANSWER_LIMIT).map_err(io::Error::other)?];
    socket.read_exact(&mut body)?;
    match InitResponse::decode(&body[..]).map_err(io::Error::other)?.result {
        Some(init_response::Result::Done(_)) => Ok(()),
        other => Err(io::Error::other(format!("unexpected answer of the init: {other:?}"))),
    }
}

/// Starts a process with these standard streams.
///
/// # Errors
/// As for [`errand_runtime::Runtime::exec`].
pub(super) async fn start(
    directory: &Path,
    id: &str,
    argv: &[String],
    streams: &[OwnedFd; 3],
) -> Result<(), RuntimeError> {
    let not_running = || RuntimeError::NotRunning { id: id.to_owned() };
    let mut socket = match connect(directory).await {
        Ok(socket) => socket,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(not_running());
        }
        Err(error) => return Err(RuntimeError::Unavailable { detail: format!("the sandbox's init: {error}") }),
    };
    let start = Start { argv: argv.to_vec(), env: Default::default() };
    let request = frame::encode(&InitRequest { kind: Some(Kind::Start(start)) });
    let asked = async {
        let sent = send_first(&socket, &request, streams).await?;
        socket.write_all(&request[sent..]).await?;
        let mut head = [0; frame::HEAD];
        socket.read_exact(&mut head).await?;
        let mut body = vec![0; frame::size(head, ANSWER_LIMIT).map_err(io::Error::other)?];
        socket.read_exact(&mut body).await?;
        InitResponse::decode(&body[..]).map_err(io::Error::other)
    };
    let uncertain = |detail: String| RuntimeError::Uncertain { detail: format!("the sandbox's init: {detail}") };
    match timeout(LIMIT, asked).await {
        Err(_) => Err(uncertain(format!("no answer within {LIMIT:?}"))),
        Ok(Err(error)) => Err(uncertain(error.to_string())),
        Ok(Ok(answer)) => match answer.result {
            Some(init_response::Result::Done(_)) => Ok(()),
            Some(init_response::Result::Failed(failed)) if failed.stage() == Stage::Stopping => Err(not_running()),
            Some(init_response::Result::Failed(failed)) => Err(not_started(&failed, argv)),
            None => Err(uncertain("it sent an unknown answer".to_owned())),
        },
    }
}

async fn connect(directory: &Path) -> io::Result<UnixStream> {
    let path = ShortPath::of(directory, SOCKET)?;
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match UnixStream::connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => sleep(PAUSE).await,
            other => return other,
        }
    }
}

/// Sends the streams with the first part of the request, and returns the length of that part.
async fn send_first(socket: &UnixStream, request: &[u8], streams: &[OwnedFd; 3]) -> io::Result<usize> {
    let descriptors = [streams[0].as_fd(), streams[1].as_fd(), streams[2].as_fd()];
    loop {
        socket.writable().await?;
        let sent = socket.try_io(Interest::WRITABLE, || Ok(rights::send(socket, request, &descriptors)?));
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// The error for a process that the init could not start.
fn not_started(failed: &Failed, argv: &[String]) -> RuntimeError {
    let errno = Errno::from_raw_os_error(failed.errno);
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let (reason, what) = match (failed.stage(), errno) {
        (Stage::Exec, Errno::NOENT | Errno::NOTDIR) => (NotStarted::NotFound, format!("{program:?} does not exist")),
        (Stage::Interpreter, _) => {
            (NotStarted::NotExecutable, format!("the interpreter or loader of {program:?} does not exist"))
        }
        (Stage::Exec, Errno::AGAIN | Errno::NOMEM) => (NotStarted::Other, format!("{program:?} cannot be executed")),
        (Stage::Exec | Stage::Request, Errno::TOOBIG) => {
            (NotStarted::TooLarge, format!("the arguments of {program:?} exceed the kernel's limit"))
        }
        (Stage::Exec, _) => (NotStarted::NotExecutable, format!("{program:?} cannot be executed")),
        (Stage::Fork, Errno::AGAIN) => (NotStarted::Other, "the sandbox is at its limit of processes".to_owned()),
        (Stage::Fork, _) => (NotStarted::Other, "the sandbox's init cannot fork".to_owned()),
        _ => (NotStarted::Other, format!("the sandbox's init refused {program:?}")),
    };
    RuntimeError::NotStarted { reason, detail: format!("{what}: {errno}") }
}
