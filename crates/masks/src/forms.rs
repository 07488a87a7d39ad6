//! The forms in which a secret appears in texts: as it is, line by line, and in the usual encodings.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

use crate::SHORTEST;

/// Bytes of one form of a value.
pub(crate) type Form = Zeroizing<Vec<u8>>;

/// Encoded forms are sought of values up to this many bytes.
const ENCODED_LIMIT: usize = 1024;
/// The most bytes of all encoded forms of one task. Values come in any number, and the forms must not take much memory.
const ENCODED_BUDGET: usize = 64 * 1024;

/// The forms of all values, none shorter than [`SHORTEST`].
pub(crate) fn of_all<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Form> {
    let mut forms = Vec::new();
    let mut left = ENCODED_BUDGET;
    for value in values {
        if value.len() < SHORTEST {
            continue;
        }
        forms.push(form(value.as_bytes()));
        // A value that was read from a file often ends with a line break, and is printed without it.
        forms.push(form(value.trim().as_bytes()));
        // A command may print a value of several lines with another line break, or with something before each line.
        if value.trim().contains('\n') {
            forms.extend(value.lines().map(|line| form(line.trim().as_bytes())));
        }
        if value.len() <= ENCODED_LIMIT {
            for encoded in encoded(value) {
                if let Some(rest) = left.checked_sub(encoded.len()) {
                    left = rest;
                    forms.push(encoded);
                }
            }
        }
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

fn form(bytes: &[u8]) -> Form {
    Zeroizing::new(bytes.to_vec())
}

fn encoded(value: &str) -> Vec<Form> {
    let mut forms = Vec::new();
    for skipped in 0..3 {
        let standard = base64(value, skipped, |bytes| STANDARD_NO_PAD.encode(bytes));
        let url_safe = base64(value, skipped, |bytes| URL_SAFE_NO_PAD.encode(bytes));
        if url_safe != standard {
            forms.push(url_safe);
        }
        forms.push(standard);
    }
    for other in [percent(value), json(value)] {
        if other[..] != *value.as_bytes() {
            forms.push(other);
        }
    }
    forms
}

/// Those characters of the base64 text that depend on the value alone, when the value begins `skipped` bytes after a group of three.
fn base64(value: &str, skipped: usize, encode: impl Fn(&[u8]) -> String) -> Form {
    let mut bytes = Zeroizing::new(vec![0; skipped]);
    bytes.extend_from_slice(value.as_bytes());
    let text = Zeroizing::new(encode(&bytes));
    let (first, end) = ((8 * skipped).div_ceil(6), 8 * bytes.len() / 6);
    form(&text.as_bytes()[first..end])
}

/// As in a URL.
fn percent(value: &str) -> Form {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = form(b"");
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte);
        } else {
            encoded.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
    encoded
}

/// As in a JSON string.
fn json(value: &str) -> Form {
    let mut encoded = form(b"");
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => encoded.extend([b'\\', byte]),
            b'\n' => encoded.extend(*b"\\n"),
            b'\r' => encoded.extend(*b"\\r"),
            b'\t' => encoded.extend(*b"\\t"),
            other => encoded.push(other),
        }
    }
    encoded
}
