//! Turns a launch request into a running process, or into the reason why it failed.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::Path,
};

use rustix::{io::Errno, process::Resource};

use super::user::{self, Identity};
use crate::{
    exec::{self, Refusal, SEARCH_PATH},
    task_dir::TaskDir,
};
use errand_proto::bridge::{LaunchRequest, ResourceLimits, ShellText, launch_request::Program};

/// A longer command text is put into a file: the kernel accepts no argument over 128 KiB (MAX_ARG_STRLEN).
const TEXT_LIMIT: usize = 96 * 1024;
/// The most bytes of a name that a message repeats.
const ABOUT_LIMIT: usize = 200;

/// The standard streams of a command.
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Whether they are a terminal that becomes the command's controlling terminal.
    pub(super) terminal: bool,
}

/// Why a command was not started, as the exit file states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// One of the exit file's keywords.
    pub(super) word: &'static str,
    pub(super) errno: i32,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(word: &'static str, errno: Errno, message: &str, about: &str) -> Self {
        let fits = !about.is_empty() && about.len() <= ABOUT_LIMIT && !about.contains('\n');
        let message = if fits { format!("{message}: {about}") } else { message.to_owned() };
        Self { word, errno: errno.raw_os_error(), message }
    }
}

/// The stack in bytes that a child uses until it executes its program. It is smaller than the size from which malloc maps memory for each
/// allocation and unmaps it afterwards.
const STACK: usize = 96 * 1024;

/// The input and the result of a child.
struct Child<'a> {
    command: &'a Command,
    streams: Streams,
    failed: Option<(Stage, Errno)>,
}

/// The child's main function.
extern "C" fn become_it(child: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the parent waits for the child and has passed a pointer to this value.
    #[allow(unsafe_code)]
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    child.failed = Some(child.command.become_it(&child.streams));
    // SAFETY: exits the child without running exit handlers of its parent.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(127)
    }
}

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Terminal,
    Limits,
    User,
    Workdir,
    Exec,
    /// The program exists, but something it needs to run (its interpreter or loader) does not.
    Interpreter,
}

/// A command that is ready to be started.
pub(super) struct Command {
    /// The programs to try in turn: the first that exists is executed.
    candidates: Vec<Vec<CString>>,
    env: Vec<CString>,
    path: String,
    workdir: Option<CString>,
    identity: Option<Identity>,
    limits: ResourceLimits,
    nice: u32,
    umask: u32,
}

impl Command {
    /// Prepares a launch.
    pub(super) fn prepare(task: &TaskDir, request: &LaunchRequest, umask: u32) -> Result<Self, Failure> {
        let identity = match request.user.as_str() {
            "" => None,
            wanted => Some(
                user::find(wanted)
                    .ok_or_else(|| Failure::new("no_such_user", Errno::NOENT, "the user is not there", wanted))?,
            ),
        };
        let env = environment(request, identity.as_ref());
        let path =
            env.get(OsStr::new("PATH")).map_or(SEARCH_PATH, |path| path.to_str().unwrap_or(SEARCH_PATH)).to_owned();
        let candidates = match &request.program {
            Some(Program::Argv(argv)) => vec![argv.arguments.clone()],
            Some(Program::Shell(text)) => shell(task, text, identity.is_some())?,
            None => vec![Vec::new()],
        };
        let c_string = |text: Vec<u8>| {
            CString::new(text).map_err(|_| Failure::new("refused", Errno::INVAL, "the command holds a NUL byte", ""))
        };
        Ok(Self {
            candidates: candidates
                .into_iter()
                .map(|argv| argv.into_iter().map(|argument| c_string(argument.into_bytes())).collect())
                .collect::<Result<_, _>>()?,
            env: env
                .into_iter()
                .map(|(name, value)| c_string([name.as_bytes(), b"=", value.as_bytes()].concat()))
                .collect::<Result<_, _>>()?,
            path,
            workdir: match request.workdir.as_str() {
                "" => None,
                workdir => Some(c_string(workdir.as_bytes().to_vec())?),
            },
            identity,
            limits: request.limits.unwrap_or_default(),
            nice: request.nice,
            umask,
        })
    }

    /// Starts the command, and returns its process id once the kernel has accepted the program.
    ///
    /// The child shares this process's memory until then, and this process is suspended meanwhile: copying memory that the exec discards at
    /// once would take longer than everything else.
    pub(super) fn start(&self, streams: Streams) -> Result<u32, Failure> {
        let mut child = Child { command: self, streams, failed: None };
        let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
        let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
        // SAFETY: only the child uses the stack, which is aligned. The stack and everything else the child uses live until the child has
        // exited or executed its program. This process has one thread, which is suspended meanwhile.
        #[allow(unsafe_code)]
        let pid = unsafe {
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            libc::clone(become_it, top.cast(), flags, (&raw mut child).cast())
        };
        let Ok(number) = u32::try_from(pid) else {
            return Err(refused(&io::Error::last_os_error()));
        };
        // SAFETY: the child writes this value, which the compiler cannot see.
        #[allow(unsafe_code)]
        let failed = unsafe { (&raw const child.failed).read_volatile() };
        match failed {
            None => Ok(number),
            Some((stage, errno)) => {
                reap(pid);
                Err(self.explain(stage, errno))
            }
        }
    }

    /// In the child: executes the command, or returns what failed.
    fn become_it(&self, streams: &Streams) -> (Stage, Errno) {
        match self.settle(streams) {
            Ok(()) => self.exec(),
            Err(failed) => failed,
        }
    }

    /// Sets up everything about the process but its program.
    fn settle(&self, streams: &Streams) -> Result<(), (Stage, Errno)> {
        let at = |stage| move |errno| (stage, errno);
        rustix::process::setsid().map_err(at(Stage::Terminal))?;
        if streams.terminal {
            rustix::process::ioctl_tiocsctty(&streams.stdin).map_err(at(Stage::Terminal))?;
        }
        rustix::stdio::dup2_stdin(&streams.stdin).map_err(at(Stage::Terminal))?;
        rustix::stdio::dup2_stdout(&streams.stdout).map_err(at(Stage::Terminal))?;
        rustix::stdio::dup2_stderr(&streams.stderr).map_err(at(Stage::Terminal))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(self.umask));
        for (resource, limit) in limits(&self.limits) {
            let limit = rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) };
            rustix::process::setrlimit(resource, limit).map_err(at(Stage::Limits))?;
        }
        if self.nice > 0 {
            // Set as an absolute value: `nice` would add to a niceness that the sandbox cannot lower. A higher niceness stays.
            let wanted = i32::try_from(self.nice).unwrap_or(19);
            match rustix::process::setpriority_process(None, wanted) {
                Ok(()) | Err(Errno::ACCESS | Errno::PERM) => {}
                Err(errno) => return Err((Stage::Limits, errno)),
            }
        }
        if let Some(identity) = &self.identity {
            change_user(identity).map_err(at(Stage::User))?;
        }
        give_up_capabilities();
        // The command dies with its shim: without the shim, the result would be lost. Set after the change of user, because that change
        // clears the setting.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        if let Some(workdir) = &self.workdir {
            rustix::process::chdir(workdir.as_c_str()).map_err(at(Stage::Workdir))?;
        }
        // A shim blocks signals that a command must get. Their actions are already the default: the spawner has reset them.
        exec::unblock_signals();
        Ok(())
    }

    fn exec(&self) -> (Stage, Errno) {
        let mut last = (Stage::Exec, Errno::NOENT);
        for argv in &self.candidates {
            last = match exec::exec(argv, &self.path, &self.env) {
                Refusal::Program(errno) => (Stage::Exec, errno),
                Refusal::Interpreter(errno) => (Stage::Interpreter, errno),
            };
            if last != (Stage::Exec, Errno::NOENT) {
                return last;
            }
        }
        last
    }

    fn explain(&self, stage: Stage, errno: Errno) -> Failure {
        let workdir = self.workdir.as_ref().map(|path| path.to_string_lossy()).unwrap_or_default();
        let program =
            self.candidates.last().and_then(|argv| argv.first()).map(|name| name.to_string_lossy()).unwrap_or_default();
        let is = |wanted: Stage| stage == wanted;
        let (word, message, about) = if is(Stage::Workdir) {
            match errno {
                Errno::NOENT | Errno::NOTDIR => ("no_such_directory", "the working directory is not there", workdir),
                _ => ("not_permitted", "the working directory cannot be entered", workdir),
            }
        } else if is(Stage::User) {
            ("not_permitted", "the sandbox may not change to that user", "".into())
        } else if is(Stage::Limits) {
            ("not_permitted", "the sandbox may not set such a limit", "".into())
        } else if is(Stage::Terminal) {
            ("refused", "the terminal cannot be set up", "".into())
        } else if is(Stage::Interpreter) {
            ("bad_interpreter", "what the program needs to run is not there", program)
        } else {
            match errno {
                Errno::NOENT | Errno::NOTDIR => ("not_found", "the program is not there", program),
                Errno::AGAIN | Errno::NOMEM => ("fork_refused", "the kernel refuses to run the program", program),
                Errno::TOOBIG => {
                    ("arguments_too_large", "arguments and environment are larger than the kernel takes", "".into())
                }
                _ => ("not_executable", "the program cannot be executed", program),
            }
        };
        Failure::new(word, errno, message, &about)
    }
}

fn refused(error: &io::Error) -> Failure {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::AGAIN);
    Failure::new("fork_refused", errno, "no process could be made", &error.to_string())
}

/// The shells to try, and how each gets the text.
fn shell(task: &TaskDir, text: &ShellText, other_user: bool) -> Result<Vec<Vec<String>>, Failure> {
    let arguments = if text.text.len() > TEXT_LIMIT {
        let path = task.file("command");
        write_command(task.path(), &path, text.text.as_bytes(), other_user).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Failure::new("no_space", errno, "the command's text cannot be written", &error.to_string())
        })?;
        vec![path.to_string_lossy().into_owned()]
    } else {
        // A text that looks like an option must not be taken for one.
        let blank = if text.text.starts_with(['-', '+']) { " " } else { "" };
        vec!["-c".to_owned(), format!("{blank}{}", text.text)]
    };
    let shells: &[&str] = if text.shell.is_empty() { &["bash", "sh"] } else { &[&text.shell] };
    Ok(shells.iter().map(|shell| [vec![(*shell).to_owned()], arguments.clone()].concat()).collect())
}

fn write_command(directory: &Path, path: &Path, text: &[u8], other_user: bool) -> io::Result<()> {
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text)?;
    if other_user {
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o644))?;
        // The other user's shell must be able to reach the file, but not list the directories.
        for directory in directory.ancestors().take(2) {
            rustix::fs::chmod(directory, rustix::fs::Mode::from_raw_mode(0o711))?;
        }
    }
    Ok(())
}

/// The command's environment.
fn environment(request: &LaunchRequest, identity: Option<&Identity>) -> BTreeMap<OsString, OsString> {
    let mut env = BTreeMap::new();
    if !request.clean_env {
        env.extend(std::env::vars_os());
    }
    if let Some((name, home)) = identity.and_then(|identity| identity.entry.clone()) {
        env.insert("HOME".into(), home.into());
        env.insert("USER".into(), name.clone().into());
        env.insert("LOGNAME".into(), name.into());
    }
    if request.terminal.is_some() {
        env.entry("TERM".into()).or_insert_with(|| "xterm-256color".into());
    }
    env.extend(request.env.iter().map(|(name, value)| (name.into(), value.into())));
    // The marker by which the command's processes are found. Set last, so that no other variable replaces it.
    env.insert("ERRAND_TASK_ID".into(), request.task_id.clone().into());
    env
}

fn limits(limits: &ResourceLimits) -> impl Iterator<Item = (Resource, u64)> {
    [
        (Resource::Nofile, limits.open_files),
        (Resource::Nproc, limits.processes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::As, limits.address_space_bytes),
        (Resource::Core, limits.core_bytes),
        (Resource::Stack, limits.stack_bytes),
    ]
    .into_iter()
    .filter_map(|(resource, limit)| Some((resource, limit?)))
}

fn change_user(identity: &Identity) -> Result<(), Errno> {
    let check = |result: libc::c_int| {
        if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::PERM)) }
    };
    let same = rustix::process::getuid().as_raw() == identity.uid && rustix::process::getgid().as_raw() == identity.gid;
    if same && rustix::process::getuid().as_raw() != 0 {
        return Ok(());
    }
    // SAFETY: the pointer and the length are those of one living vector; the other calls take numbers.
    #[allow(unsafe_code)]
    unsafe {
        check(libc::setgroups(identity.groups.len(), identity.groups.as_ptr()))?;
        check(libc::setgid(identity.gid))?;
        check(libc::setuid(identity.uid))
    }
}

/// Drops all capabilities: a sandbox may have some for its bridge process alone. Under no_new_privs the command cannot regain them.
fn give_up_capabilities() {
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
    let of_bridge = CapabilitySet::KILL | CapabilitySet::SETGID | CapabilitySet::SETUID;
    if capabilities(None).is_ok_and(|sets| sets.permitted == of_bridge) {
        let none = CapabilitySet::empty();
        let _ = set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none });
    }
}

/// Waits for a child that is about to exit.
fn reap(pid: libc::pid_t) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ =
            rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use errand_proto::bridge::Argv;

    #[test]
    fn commands_of_any_user_die_with_their_shim() {
        let root = tempfile::tempdir().expect("a directory");
        let task = TaskDir::new(root.path(), "t").expect("an id");
        // Only root can change the user.
        let users = if rustix::process::getuid().is_root() { ["", "4711:4711"].as_slice() } else { &[""] };
        for user in users {
            let program = Some(Program::Argv(Argv { arguments: vec!["sleep".to_owned(), "100".to_owned()] }));
            let request = LaunchRequest { program, user: (*user).to_owned(), ..LaunchRequest::default() };
            let command = Command::prepare(&task, &request, 0o022).expect("prepared");
            // The kernel counts a thread as a parent for the death signal.
            let pid = std::thread::spawn(move || {
                let null = || File::options().read(true).write(true).open("/dev/null").expect("open").into();
                let streams = Streams { stdin: null(), stdout: null(), stderr: null(), terminal: false };
                command.start(streams).expect("started")
            });
            let pid = i32::try_from(pid.join().expect("ended")).expect("a number");
            let mut status = 0;
            // SAFETY: waits for a child and writes its status there.
            #[allow(unsafe_code)]
            let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            let signal = std::process::ExitStatus::from_raw(status).signal();
            assert_eq!((waited, signal), (pid, Some(libc::SIGKILL)), "{user:?}");
        }
    }
}
