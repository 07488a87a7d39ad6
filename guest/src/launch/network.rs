//! Makes a network for one sandbox, and starts the connector: the program that links it to the machine's network.
//!
//! The launcher makes the network itself, because the connector must be able to enter the user namespace that owns the network, and
//! bubblewrap offers none. The connector is a child of this process, which becomes bubblewrap, and exits with it.

use std::{
    fs,
    io::{self, Read as _},
    time::{Duration, Instant},
};

use rustix::{
    process::{DumpableBehavior, Pid, Signal, WaitOptions, waitpid},
    thread::UnshareFlags,
};

use super::{Tried as _, Trouble, c_strings};
use crate::{exec, fence};
use errand_proto::init;

/// How long the connector may take to start.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// Makes the network, fences it, and starts the connector.
pub(super) fn connect(connector: &[String], wanted: Option<&init::Fence>) -> Result<(), Trouble> {
    let own = std::process::id();
    // Read while this process still sees the machine's addresses. Some of them may also be the sandbox network's own addresses; those stay
    // reachable inside.
    let refused = fence::own_addresses();
    let places =
        ["--userns".to_owned(), format!("/proc/{own}/ns/user"), "--netns".to_owned(), format!("/proc/{own}/ns/net")];
    let argv = c_strings(&[connector, &places].concat())?;
    // The change of user made this process non-dumpable, which hides its `/proc` files even from its own child.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).tried(|| "being looked at".to_owned())?;
    let (mut made, make) = io::pipe().tried(|| "a pipe".to_owned())?;
    // SAFETY: this process has one thread, so the child may call any function.
    #[allow(unsafe_code)]
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(make);
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // The read ends when the network exists, or when making it has failed.
        if made.read(&mut [0]).is_ok_and(|read| read == 1)
            && let Some(program) = argv.first()
        {
            let errno = exec::execve(program, &argv, &[]);
            eprintln!("errand-bridge: {}: {errno}", program.to_string_lossy());
        }
        std::process::exit(1);
    }
    let Some(child) = Pid::from_raw(child).filter(|_| child > 0) else {
        return Err(io::Error::last_os_error()).tried(|| "a process for the network".to_owned());
    };
    leave().tried(|| "a network of its own".to_owned())?;
    if let Some(wanted) = wanted {
        // Installed before any route leads out.
        put_up(wanted, refused).tried(|| {
            "a fence around its network, which takes a kernel with nf_tables (--network-mode none works without)"
                .to_owned()
        })?;
    }
    rustix::io::write(&make, b"n").tried(|| "a pipe".to_owned())?;
    await_route(child).tried(|| "the connection to the network".to_owned())
}

fn put_up(wanted: &init::Fence, refused: Vec<fence::Range>) -> io::Result<()> {
    let allowed = wanted.allowed.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
    let resolvers = wanted.resolvers.iter().map(|address| address.parse()).collect::<Result<_, _>>();
    fence::Fence { allowed, refused, resolvers: resolvers.map_err(io::Error::other)? }.put_up()
}

/// Enters a new network namespace, and a new user namespace that owns it.
fn leave() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: this process has one thread, and nothing in it relies on the network or on privileges of its old user namespace.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
    }
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Waits until the network has a route to the outside.
fn await_route(connector: Pid) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        // The first line of the IPv4 file is a heading; the IPv6 file also lists routes that lead nowhere.
        let old = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
        let new = fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
        if old.lines().count() > 1 || new.lines().any(|line| !line.ends_with(" lo")) {
            return Ok(());
        }
        if let Ok(Some((_, status))) = waitpid(Some(connector), WaitOptions::NOHANG) {
            return Err(io::Error::other(format!("the connector has ended: {status:?}")));
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(PAUSE);
    }
}
