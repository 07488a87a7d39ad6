//! System calls by number, tried one after the other inside the sandbox.

use libc::c_long;

use super::pair::Pair;

/// A system call: its name, its number, and its arguments as Python writes them.
pub type Call<'a> = (&'a str, c_long, &'a str);

/// Makes a call and prints its name with the result. A child that should not exist exits at once. `vector` is a `struct iovec`.
const PRELUDE: &str = "
import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
memory = ctypes.create_string_buffer(16)
vector = struct.pack('PN', ctypes.addressof(memory), 16)
def call(name, number, *arguments):
    ctypes.set_errno(0)
    as_c = lambda one: ctypes.c_char_p(one) if isinstance(one, bytes) else ctypes.c_long(one)
    result = libc.syscall(ctypes.c_long(number), *[as_c(one) for one in arguments])
    if result == 0 and name.startswith('clone'):
        os._exit(0)
    print(name, 'done' if result != -1 else errno.errorcode[ctypes.get_errno()], flush=True)
";

impl Pair {
    /// Runs Python with `call(name, number, ...)` to make system calls.
    pub async fn calling(&self, script: &str) -> String {
        self.python(&format!("{PRELUDE}{script}")).await
    }

    /// Every one of these calls is refused with this error.
    pub async fn are_refused(&self, calls: &[Call<'_>], error: &str) {
        let tried = calls.iter().map(|(name, number, arguments)| format!("call({name:?}, {number}, {arguments})\n"));
        let expected: String = calls.iter().map(|(name, ..)| format!("{name} {error}\n")).collect();
        assert_eq!(self.calling(&tried.collect::<String>()).await, expected);
    }
}
