//! Paths of files: no bytes make a path that begins elsewhere than it should, and names stay names.

#![no_main]

use errand_guest::files::path::{PATH_LIMIT, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (path, root) = input;
    let Ok(parsed) = parse(path, root) else { return };
    let relative = parsed.relative();
    assert!(!relative.is_empty() && !relative.starts_with(b"/") && !relative.contains(&0));
    assert!(relative.len() <= PATH_LIMIT);
    assert_eq!(parsed.root().unwrap_or_default(), root);
    assert!(parsed.root().is_none_or(|root| root.starts_with(b"/")));
    assert!(!parsed.name().is_empty());

    if let Some((above, name)) = parsed.split() {
        assert!(!above.is_empty() && !above.starts_with(b"/"));
        assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/'));
        // Joining the parts yields the same path.
        let joined = if above == b"." { name.to_vec() } else { [&above[..], b"/", name].concat() };
        assert_eq!(joined, relative);
    }
    for above in parsed.above() {
        assert!(relative.starts_with(&above) && above.len() < relative.len());
    }
    // Parsing is idempotent.
    let again = if root.is_empty() { [b"/", &relative[..]].concat() } else { relative.clone() };
    assert_eq!(parse(&again, root).map(|again| again.relative()), Ok(relative));
});
