//! Which system calls a sandbox may make: all but those that no command needs and that reach into the kernel, or at the machine.
//!
//! The rest of the sandbox already forbids most of them, for want of a capability. The filter is a second wall, for the day on which the
//! kernel has a hole behind one of these doors. What is refused is much what Docker's default profile refuses, so that what builds and
//! runs there does so here: compilers, debuggers, Go, Java, Node and Python. A browser finds that it cannot make a sandbox of its own.

use std::{collections::BTreeMap, env::consts::ARCH};

use libc::{EPERM, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    /// The filter cannot be made for this processor.
    #[error("no filter of system calls can be made for {ARCH}")]
    Compile(#[source] BackendError),
    /// The compiler did what the joining of two filters does not allow for.
    #[error("the filters of system calls cannot be joined")]
    Join,
}

impl From<BackendError> for SeccompError {
    fn from(source: BackendError) -> Self {
        Self::Compile(source)
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that are refused whatever their arguments are.
const REFUSED: &[c_long] = &[
    // Mounts: what is visible in the sandbox was decided when it was made.
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
    // Files by handle, which leads past every mount to whatever the disk holds.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Other namespaces. Making new ones is below, with its flags.
    libc::SYS_setns,
    // The kernel itself: another one, or a part of it.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    // Large doors into the kernel, behind which most holes of the last years were.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Keyrings, which no namespace keeps apart.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // What is the machine's: its clock, names, swap, quotas, accounts, terminals and the kernel's log.
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
    // Nothing but history.
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
];

/// Calls that only this kind of processor has, refused as well: its input and output ports, and more history.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS__sysctl];
/// Calls that only this kind of processor has.
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// Younger than the table of numbers: Linux 6.15. The same on every processor, as all new ones are.
const OPEN_TREE_ATTR: c_long = 467;

/// Namespaces that `clone` makes.
const CLONE_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// One more, which `unshare` alone makes. In `clone` the bit is part of a signal's number.
const CLONE_NEWTIME: i32 = 0x80;

/// Requests to a terminal that type on it as if its user did.
const TYPING: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// Personalities that change nothing for others: Linux, a kernel that calls itself 2.6, short time-outs, addresses that are not
/// random (for debuggers), and the question which one it is. The others emulate old systems with the protections that those had.
const PERSONALITIES: [u64; 6] = [0, 0x8, 0x0002_0000, 0x0002_0008, 0x0004_0000, 0xffff_ffff];

/// Families of sockets: of this machine, of the networks that namespaces keep apart, and for asking the kernel about those. The others
/// reach past every namespace, such as those to a hypervisor, are doors into the kernel, or make it load what implements them.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The sandbox's first process, which belongs to the same user as the others. Without limits of its own it would neither hear nor live.
const INIT: u64 = 1;

/// The lowest number of a call of the x32 kind, which the kernel takes for x86-64.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Instruction: go on behind the next one if the number is lower. BPF_JMP | BPF_JGE | BPF_K of the kernel.
#[cfg(target_arch = "x86_64")]
const JUMP_IF_LESS: u16 = 0x05 | 0x30;
/// Instruction: the verdict. BPF_RET | BPF_K of the kernel.
const RETURN: u16 = 0x06;

/// The filter as the kernel takes it: an array of `struct sock_filter` in the machine's byte order, for `bwrap --seccomp FD`.
///
/// # Errors
/// On a processor for which there is no filter.
pub(super) fn program() -> Result<Vec<u8>, SeccompError> {
    let mut bytes = Vec::new();
    for instruction in instructions()? {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

/// The compiler knows one verdict for all rules, and two are needed: what it makes for each is put one behind the other.
fn instructions() -> Result<BpfProgram, SeccompError> {
    let arch = TargetArch::try_from(ARCH)?;
    // Its flags are behind a pointer, where no filter can look. Every C library takes the old call when told that there is no such one.
    let absent = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let mut joined = compile(absent, libc::ENOSYS, arch)?;
    // Calls of another kind of processor, such as 32-bit ones, end the process: the compiler puts that before everything.
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
    // A pair is a socket too, and loads what implements its family in the same way.
    rules.insert(libc::SYS_socket, vec![others.clone()]);
    rules.insert(libc::SYS_socketpair, vec![others]);
    rules.insert(libc::SYS_prlimit64, vec![one(0, SeccompCmpOp::Eq, INIT)?]);
    Ok(rules)
}

/// The kernel takes these arguments as 32 bits: what is in the upper half must not make a difference.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn one(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![condition(argument, operator, value)?])
}

#[cfg(test)]
mod tests;
