//! UTF-8 boundaries in output, so that two pieces of text never share a character.

/// Drops up to three leading bytes that belong to a character that began earlier.
pub fn trim_start(bytes: &[u8]) -> &[u8] {
    let skip = bytes.iter().take(3).take_while(|byte| (0x80..0xC0).contains(*byte)).count();
    // Four continuation bytes in a row belong to no character: this is binary output, which stays unchanged.
    if skip == 3 && bytes.get(3).is_some_and(|byte| (0x80..0xC0).contains(byte)) { bytes } else { &bytes[skip..] }
}

/// How many bytes at the end begin a character whose remaining bytes have not arrived: 0 to 3.
pub fn unfinished_suffix(bytes: &[u8]) -> usize {
    for length in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - length];
        let width = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if width > length { length } else { 0 };
    }
    0
}

/// Splits bytes into complete characters and the incomplete rest, which the caller holds back for the next piece. At the end of output
/// nothing is held back.
pub fn split_whole(bytes: &[u8], more_to_come: bool) -> (&[u8], &[u8]) {
    let keep = if more_to_come { unfinished_suffix(bytes) } else { 0 };
    bytes.split_at(bytes.len() - keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn incomplete_character_is_held_back() {
        let euro = "€".as_bytes();
        assert_eq!(split_whole(&euro[..2], true), (&b""[..], &euro[..2]));
        assert_eq!(split_whole(euro, true), (euro, &b""[..]));
        assert_eq!(split_whole(&euro[..2], false), (&euro[..2], &b""[..]));
        assert_eq!(split_whole(b"abc", true), (&b"abc"[..], &b""[..]));
    }

    #[test]
    fn binary_output_is_not_held_back() {
        assert_eq!(unfinished_suffix(&[0xFF, 0xFF, 0xFF]), 0);
        assert_eq!(unfinished_suffix(&[0x80; 8]), 0);
        assert_eq!(trim_start(&[0x80; 8]).len(), 8);
    }

    proptest! {
        #[test]
        fn split_text_is_reassembled(text in "\\PC{0,40}", cut in 0usize..160) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let (whole, kept) = split_whole(&bytes[..cut], true);
            let rest = [kept, &bytes[cut..]].concat();
            let first = std::str::from_utf8(whole);
            let second = std::str::from_utf8(&rest);
            prop_assert!(first.is_ok() && second.is_ok());
            prop_assert_eq!(format!("{}{}", first.unwrap_or_default(), second.unwrap_or_default()), text);
        }

        #[test]
        fn at_most_three_bytes_are_held_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(split_whole(&bytes, true).1.len() <= 3);
            prop_assert!(bytes.len() - trim_start(&bytes).len() <= 3);
        }
    }
}
