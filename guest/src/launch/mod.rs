//! Launches an embedded sandbox: a process of the server becomes bubblewrap, which makes the sandbox's namespaces and then becomes its
//! init.
//!
//! The launcher is a program of its own because the server has threads: calls that change a whole process are safe here, where there is one
//! thread. It prepares only what bubblewrap does not: the cgroup, a view of the file system, the user, the network.
//!
//! Its standard input is the init's listening socket, its standard output the file whose lock says that the sandbox lives, its standard
//! error the sandbox's log.

mod copy;
mod disk;
mod inherited;
mod network;
mod view;

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd as _, RawFd},
    path::Path,
};

use prost::Message as _;
use rustix::{
    fs::Mode,
    process::{Gid, Resource, Rlimit, Uid},
};

use crate::{descriptors, exec, init};
use errand_proto::init::{LaunchSandbox, Owner};

/// The descriptor to which bubblewrap writes the init's process id.
pub const INFO: RawFd = 5;
/// The descriptor that the seccomp filter is read from.
pub const FILTER: RawFd = 6;
/// The descriptor that bubblewrap reads most of its arguments from.
pub const ARGUMENTS: RawFd = 7;
/// Descriptors from this number on have no meaning for the programs that follow.
const FREE: RawFd = 16;

/// Why the launch failed, and during which step.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Trouble {
    what: String,
    source: io::Error,
}

/// Adds the failed step to an error.
trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Trouble>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Trouble> {
        self.map_err(|source| Trouble { what: what(), source: source.into() })
    }
}

/// Launches the sandbox that a file describes. Returns only when the launch fails.
///
/// # Errors
/// When a step of the launch fails.
pub fn run(request: &Path) -> Result<std::convert::Infallible, Trouble> {
    begin_anew();
    let named = || request.display().to_string();
    let request = fs::read(request).tried(named)?;
    let request = LaunchSandbox::decode(&request[..]).map_err(io::Error::other).tried(named)?;
    rustix::process::setsid().tried(|| "a session of its own".to_owned())?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    inherited::reset();
    place_descriptors(&request)?;
    for procs in &request.cgroup_procs {
        fs::write(procs, std::process::id().to_string()).tried(|| format!("joining the cgroup of {procs}"))?;
    }
    if request.file_bytes > 0 {
        let limit = Rlimit { current: Some(request.file_bytes), maximum: Some(request.file_bytes) };
        rustix::process::setrlimit(Resource::Fsize, limit).tried(|| "limiting the size of files".to_owned())?;
    }
    if let Some(view) = &request.view {
        view::enter(view, request.owner.as_ref())?;
    }
    if let Some(wanted) = &request.copy {
        copy::make(Path::new(&wanted.source), Path::new(&wanted.target), request.owner.as_ref())?;
    }
    if let Some(owner) = &request.owner {
        become_owner(owner).tried(|| format!("changing to the user {}", owner.uid))?;
    }
    if !request.connector.is_empty() {
        network::connect(&request.connector, request.fence.as_ref())?;
    }
    take_over(&request.command)
}

/// Closes every descriptor that the server inherited: they are not for a sandbox. Reserves the numbers below [`FREE`], so that later files
/// get higher ones. Resets every signal to its default action.
fn begin_anew() {
    exec::default_signals();
    exec::unblock_signals();
    // This process has opened nothing yet.
    descriptors::close_all();
    // SAFETY: no descriptor from 3 on is open, so none is replaced.
    #[allow(unsafe_code)]
    unsafe {
        for number in 3..FREE {
            libc::dup3(libc::STDERR_FILENO, number, libc::O_CLOEXEC);
        }
    }
}

/// Puts every descriptor at the number where the programs that follow expect it.
fn place_descriptors(request: &LaunchSandbox) -> Result<(), Trouble> {
    place(&io::stdin(), init::LISTENER).tried(|| "the init's socket".to_owned())?;
    place(&io::stdout(), init::LOCK).tried(|| "the sandbox's lock".to_owned())?;
    let nothing = File::options().read(true).write(true).open("/dev/null").tried(|| "/dev/null".to_owned())?;
    rustix::stdio::dup2_stdin(&nothing).tried(|| "standard input".to_owned())?;
    rustix::stdio::dup2_stdout(&nothing).tried(|| "standard output".to_owned())?;
    let info = File::create(&request.info).tried(|| request.info.clone())?;
    place(&info, INFO).tried(|| request.info.clone())?;
    for (path, number) in [(&request.filter, FILTER), (&request.arguments, ARGUMENTS)] {
        if !path.is_empty() {
            let file = File::open(path).tried(|| path.clone())?;
            place(&file, number).tried(|| path.clone())?;
        }
    }
    Ok(())
}

/// Copies a descriptor to a number below [`FREE`], at which it is passed on.
fn place(descriptor: &impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: no other descriptor in use has one of those numbers.
    #[allow(unsafe_code)]
    let placed = unsafe { libc::dup2(descriptor.as_fd().as_raw_fd(), number) };
    if placed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes the user that owns the sandbox, permanently: the change also drops the capabilities.
fn become_owner(owner: &Owner) -> Result<(), rustix::io::Errno> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Replaces this process with the next program.
fn take_over(command: &[String]) -> Result<std::convert::Infallible, Trouble> {
    let argv = c_strings(command)?;
    let Some(program) = argv.first() else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).tried(|| "the command".to_owned());
    };
    let errno = exec::execve(program, &argv, &[]);
    Err(errno).tried(|| program.to_string_lossy().into_owned())
}

fn c_strings(words: &[String]) -> Result<Vec<CString>, Trouble> {
    let c_string = |text: &String| CString::new(text.as_bytes()).map_err(io::Error::other);
    words.iter().map(c_string).collect::<Result<_, _>>().tried(|| "the words of a command".to_owned())
}
