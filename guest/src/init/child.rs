//! Forks a process for the server.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{CString, OsString},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
};

use rustix::io::Errno;

use crate::exec::{self, Refusal, SEARCH_PATH};
use errand_proto::init::{Done, Failed, InitResponse, Stage, Start, init_response::Result as Answer};

/// The size of a failed child's message in bytes: the stage and the errno.
const MESSAGE: usize = 8;

/// A forked process of which it is not yet known whether it has executed its program.
pub(super) struct Starting {
    pid: u32,
    said: io::PipeReader,
}

impl Starting {
    /// Forks a process with these standard streams, or returns why that is not possible.
    pub(super) fn begin(request: Start, streams: &[OwnedFd; 3]) -> Result<Self, InitResponse> {
        let argv = c_strings(request.argv.into_iter().map(String::into_bytes))?;
        if argv.is_empty() {
            return Err(failed(Stage::Request, Errno::INVAL));
        }
        let env = environment(std::env::vars_os(), request.env);
        let path = env.get("PATH".as_bytes()).and_then(|path| String::from_utf8(path.clone()).ok());
        let env = c_strings(env.into_iter().map(|(name, value)| [&name, &b"="[..], &value].concat()))?;
        let (said, say) = io::pipe().map_err(|error| failed_by(Stage::Fork, &error))?;
        rustix::io::ioctl_fionbio(&said, true).map_err(|errno| failed(Stage::Fork, errno))?;
        // SAFETY: this process has one thread, so the child may call any function.
        #[allow(unsafe_code)]
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let (stage, errno) = become_it(&argv, path.as_deref().unwrap_or(SEARCH_PATH), &env, streams);
            let message = [(stage as i32).to_le_bytes(), errno.raw_os_error().to_le_bytes()].concat();
            // If the init no longer reads the pipe, the init is exiting and this process exits with it.
            let _ = (&say).write_all(&message);
            // SAFETY: exits the child without running exit handlers of its parent.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(127)
            }
        }
        match u32::try_from(pid) {
            Ok(pid) => Ok(Self { pid, said }),
            Err(_) => Err(failed_by(Stage::Fork, &io::Error::last_os_error())),
        }
    }

    /// How the start ended; none as long as that is not known.
    pub(super) fn ended(&mut self) -> Option<InitResponse> {
        let mut message = [0; MESSAGE];
        match self.said.read(&mut message) {
            // The program was executed: the exec closed the pipe.
            Ok(0) => Some(done(self.pid)),
            // The child writes its message in one write, so it is read whole.
            Ok(_) => {
                let number = |at: usize| i32::from_le_bytes([0, 1, 2, 3].map(|index| message[at + index]));
                Some(InitResponse { result: Some(Answer::Failed(Failed { stage: number(0), errno: number(4) })) })
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            Err(error) => Some(failed_by(Stage::Exec, &error)),
        }
    }
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.said.as_fd()
    }
}

/// In the child: executes the program, or returns what failed.
fn become_it(argv: &[CString], path: &str, env: &[CString], streams: &[OwnedFd; 3]) -> (Stage, Errno) {
    let settled = rustix::process::setsid()
        .and_then(|_| rustix::stdio::dup2_stdin(&streams[0]))
        .and_then(|()| rustix::stdio::dup2_stdout(&streams[1]))
        .and_then(|()| rustix::stdio::dup2_stderr(&streams[2]));
    if let Err(errno) = settled {
        return (Stage::Streams, errno);
    }
    exec::unblock_signals();
    match exec::exec(argv, path, env) {
        Refusal::Program(errno) => (Stage::Exec, errno),
        Refusal::Interpreter(errno) => (Stage::Interpreter, errno),
    }
}

/// The init's own environment with the request's additions.
fn environment(
    own: impl Iterator<Item = (OsString, OsString)>,
    added: HashMap<String, String>,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let own = own.map(|(name, value)| (name.into_vec(), value.into_vec()));
    own.chain(added.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes()))).collect()
}

fn c_strings(texts: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>, InitResponse> {
    texts.map(|text| CString::new(text).map_err(|_| failed(Stage::Request, Errno::INVAL))).collect()
}

/// The response to a successful request.
pub(super) fn done(pid: u32) -> InitResponse {
    InitResponse { result: Some(Answer::Done(Done { pid })) }
}

/// The response to a failed request.
pub(super) fn failed(stage: Stage, errno: Errno) -> InitResponse {
    InitResponse { result: Some(Answer::Failed(Failed { stage: stage.into(), errno: errno.raw_os_error() })) }
}

fn failed_by(stage: Stage, error: &io::Error) -> InitResponse {
    failed(stage, Errno::from_io_error(error).unwrap_or(Errno::IO))
}
