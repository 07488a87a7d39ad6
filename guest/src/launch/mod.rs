//! Making an embedded sandbox: from a process of the server to bubblewrap, which makes the sandbox's namespaces and becomes its init.
//!
//! It is a program of its own because the server has threads: what changes a whole process is done here, where there is one thread and
//! nothing else to disturb. It prepares only what bubblewrap does not: the cgroup, a view of the file system, the user, the network.
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

use crate::{exec, init};
use errand_proto::init::{LaunchSandbox, Owner};

/// The descriptor by which bubblewrap tells the init's process number.
pub const INFO: RawFd = 5;
/// The descriptor that the seccomp filter is read from.
pub const FILTER: RawFd = 6;
/// The descriptor that bubblewrap reads most of its arguments from.
pub const ARGUMENTS: RawFd = 7;
/// Numbers from here on have no meaning for those who come after.
const FREE: RawFd = 16;

/// What stood in the way.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Trouble {
    what: String,
    source: io::Error,
}

/// Gives an error the words for what was tried.
trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Trouble>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Trouble> {
        self.map_err(|source| Trouble { what: what(), source: source.into() })
    }
}

/// Makes the sandbox that a file describes. Returns only when that fails.
///
/// # Errors
/// What stood in the way.
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

/// Closes what whoever started the server has left open: it is not for a sandbox. Keeps the numbers below [`FREE`] from whatever is opened
/// from here on. What signals do is the default again.
fn begin_anew() {
    exec::default_signals();
    exec::unblock_signals();
    // SAFETY: this process has opened nothing yet.
    #[allow(unsafe_code)]
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        for number in 3..FREE {
            libc::dup3(libc::STDERR_FILENO, number, libc::O_CLOEXEC);
        }
    }
}

/// Puts every descriptor where those who come after look for it.
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

/// Gives a descriptor a number below [`FREE`], by which it is passed on.
fn place(descriptor: &impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: nothing else that is used has one of those numbers.
    #[allow(unsafe_code)]
    let placed = unsafe { libc::dup2(descriptor.as_fd().as_raw_fd(), number) };
    if placed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Becomes the user that the sandbox belongs to, for good: capabilities go with the change.
fn become_owner(owner: &Owner) -> Result<(), rustix::io::Errno> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Becomes the program that takes over.
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
