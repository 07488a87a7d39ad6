//! The filter of system calls of a sandbox. It refuses calls that commands do not need and that change the host or expose much kernel code.
//!
//! Most of these calls already fail in a sandbox, because it has no capabilities. The filter also blocks the way to bugs in their
//! implementation. It refuses about the same calls as Docker's default profile, so that compilers, debuggers, Go, Java, Node and Python work
//! as in Docker. Browsers cannot make sandboxes of their own inside.

use std::{collections::BTreeMap, env::consts::ARCH};

use libc::{EPERM, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// Why the filter cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    /// The compiler refuses the rules, or does not support this processor architecture.
    #[error("cannot compile the filter of system calls for {ARCH}")]
    Compile(#[source] BackendError),
    /// A compiled filter does not end with the instruction that joining relies on.
    #[error("cannot join the two filters of system calls: unexpected last instruction")]
    Join,
}

impl From<BackendError> for SeccompError {
    fn from(source: BackendError) -> Self {
        Self::Compile(source)
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that are refused for all arguments.
const REFUSED: &[c_long] = &[
    // Mounts: a sandbox keeps those that it was started with.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Files by handle: a handle can mean any file of a disk, also outside of the mounted directories.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Joining other namespaces. The flags that make new ones are below.
    libc::SYS_setns,
    // Loading kernels and kernel modules.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    // Large interfaces, in which most kernel vulnerabilities of recent years were found.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Keyrings, which are not separated by namespaces.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Settings of the host: clock, names, swap, quotas, accounting, terminals and the kernel's log.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_syslog,
    // Obsolete calls.
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
];

/// Refused calls that exist only on x86-64: access to I/O ports, and obsolete calls.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS__sysctl];
/// Refused calls that exist only on this architecture.
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// A call of Linux 6.15 that the `libc` crate does not name. Its number is the same on every architecture, as for all recent calls.
const OPEN_TREE_ATTR: c_long = 467;

/// The flags of `clone` that make namespaces.
const CLONE_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// A flag of `unshare` only. In `clone` the bit is part of the signal number.
const CLONE_NEWTIME: i32 = 0x80;

/// `ioctl` requests that insert input into a terminal.
const TYPING: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// Allowed personalities: Linux (0), 32-bit `uname` (8), kernel version 2.6 (0x20000), both, no address randomization (0x40000, used by
/// debuggers), and the query. The others emulate old systems, with fewer protections.
const PERSONALITIES: [u64; 6] = [0, 0x8, 0x0002_0000, 0x0002_0008, 0x0004_0000, 0xffff_ffff];

/// Allowed socket families: those of the host, of networks, which namespaces separate, and netlink, which queries networks. Of the others,
/// some ignore namespaces, as those to a hypervisor do, and some make the kernel load modules.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The process id of the init. It belongs to the same user as the commands, which could otherwise set its resource limits and so end it.
const INIT: u64 = 1;

/// The lowest number of a call of the x32 ABI, which the kernel reports with the architecture x86-64.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// The instruction that compares the call's number with `k` (BPF_JMP | BPF_JGE | BPF_K). Used so that lower numbers skip the next instruction.
#[cfg(target_arch = "x86_64")]
const JUMP_IF_LESS: u16 = 0x05 | 0x30;
/// The instruction that ends the filter with its result (BPF_RET | BPF_K).
const RETURN: u16 = 0x06;

/// The filter for `bwrap --seccomp FD`: an array of `struct sock_filter` in native byte order.
///
/// # Errors
/// When the filter does not support this processor architecture.
pub(super) fn program() -> Result<Vec<u8>, SeccompError> {
    let mut bytes = Vec::new();
    for instruction in instructions()? {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

/// The compiler supports one action for all rules, but two are needed. So this compiles two filters and concatenates them.
fn instructions() -> Result<BpfProgram, SeccompError> {
    let arch = TargetArch::try_from(ARCH)?;
    // A filter cannot read the flags of clone3, which are behind a pointer. C libraries fall back to clone when it fails with ENOSYS.
    let absent = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let mut joined = compile(absent, libc::ENOSYS, arch)?;
    // Without its last instruction, "allow", the first filter continues with the second one. The compiler begins each filter with a check
    // that kills processes which use the calls of another architecture, such as 32-bit ones.
    match joined.pop() {
        Some(last) if last.code == RETURN && last.k == u32::from(SeccompAction::Allow) => {}
        Some(_) | None => return Err(SeccompError::Join),
    }
    #[cfg(target_arch = "x86_64")]
    joined.extend([
        sock_filter { code: JUMP_IF_LESS, jt: 0, jf: 1, k: X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: errno(libc::ENOSYS).into() },
    ]);
    joined.extend(compile(refused()?, EPERM, arch)?);
    Ok(joined)
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn compile(rules: Rules, number: i32, arch: TargetArch) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, SeccompAction::Allow, errno(number), arch)?.try_into()
}

fn refused() -> Result<Rules, BackendError> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    let makes = |flag: i32| {
        let flag = u64::from(flag.unsigned_abs());
        one(0, SeccompCmpOp::MaskedEq(flag), flag)
    };
    let namespaces = CLONE_NAMESPACES.map(makes).into_iter().collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_clone, namespaces.clone());
    rules.insert(libc::SYS_unshare, namespaces.into_iter().chain([makes(CLONE_NEWTIME)?]).collect());
    let typing = TYPING.map(|request| one(1, SeccompCmpOp::Eq, request)).into_iter().collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, typing);
    let others =
        PERSONALITIES.map(|known| condition(0, SeccompCmpOp::Ne, known)).into_iter().collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_personality, vec![SeccompRule::new(others)?]);
    let others = FAMILIES.map(|family| condition(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())));
    let others = SeccompRule::new(others.into_iter().collect::<Result<_, _>>()?)?;
    // `socketpair` makes the kernel load modules as `socket` does.
    rules.insert(libc::SYS_socket, vec![others.clone()]);
    rules.insert(libc::SYS_socketpair, vec![others]);
    rules.insert(libc::SYS_prlimit64, vec![one(0, SeccompCmpOp::Eq, INIT)?]);
    Ok(rules)
}

/// A condition on the lower 32 bits of an argument: the kernel ignores the upper half of these arguments.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// A rule with one condition.
fn one(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![condition(argument, operator, value)?])
}

#[cfg(test)]
mod tests;
