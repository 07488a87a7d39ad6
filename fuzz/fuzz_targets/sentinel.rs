//! The exit file: no content makes the parser invent a result, or take one from a truncated file.

#![no_main]

use errand_task::{Nonce, sentinel::{SIZE_LIMIT, Sentinel, parse_result, read}};
use libfuzzer_sys::fuzz_target;

const NONCE: &str = "0192f0c1-aaaa-4bbb-8ccc-123456789abc";

fuzz_target!(|content: &[u8]| {
    let nonce: Nonce = NONCE.parse().expect("a nonce");
    if let Sentinel::Complete(_) = read(Some(content), nonce) {
        let line = content.strip_suffix(b"\n").expect("a whole line");
        let ours = std::str::from_utf8(line).is_ok_and(|line| line.starts_with("errand ") && line.len() < SIZE_LIMIT);
        assert!(ours, "a result out of something else");
    }

    // Random bytes hardly ever form a result of this launch, so this tests a prefixed one too.
    let Ok(result) = std::str::from_utf8(content) else { return };
    let line = format!("errand 1 {NONCE} {result}\n");
    let found = read(Some(line.as_bytes()), nonce);
    if result.contains('\n') || line.len() > SIZE_LIMIT {
        assert_eq!(found, Sentinel::Corrupt);
        return;
    }
    assert_eq!(found, parse_result(result).map_or(Sentinel::Corrupt, Sentinel::Complete));
    for cut in 0..line.len() {
        assert_eq!(read(Some(&line.as_bytes()[..cut]), nonce), Sentinel::Corrupt, "cut after {cut} bytes");
    }
});
