//! Whether a JPEG file is whole. The decoder fills what is missing with grey; PIL raises an error.
//!
//! Stricter than PIL: the mark at the end must be there, also where a few bytes follow the picture that are none.

/// Whether the end of the picture is marked: not the end of a thumbnail, nor bytes that look like it in a segment.
pub(super) fn has_end(bytes: &[u8]) -> bool {
    const END: u8 = 0xd9;
    const SCAN: u8 = 0xda;
    let byte = |at: usize| bytes.get(at).copied();
    // Behind the start-of-image mark, which the format was recognised by.
    let mut at = 2;
    while let Some(marker) = byte(at + 1) {
        match (byte(at), marker) {
            (Some(0xff), END) => return true,
            // Fill bytes.
            (Some(0xff), 0xff) => at += 1,
            // No mark at all, and marks without a segment.
            (Some(0xff), 0x00 | 0x01 | 0xd0..=0xd7) => at += 2,
            (Some(0xff), _) => {
                let (Some(high), Some(low)) = (byte(at + 2), byte(at + 3)) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
                if marker == SCAN {
                    at += scan(bytes.get(at..).unwrap_or_default());
                }
            }
            // Not where a mark should be: the decoder looks for the next one, too.
            _ => at += 1,
        }
    }
    false
}

/// The bytes of a scan: up to a mark that is neither a restart nor the byte 0xff itself.
fn scan(bytes: &[u8]) -> usize {
    let is_mark = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7 | 0xff);
    bytes.windows(2).position(is_mark).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_not_taken_for_another_ones() {
        // Start; a segment that holds the end of a thumbnail; a scan with a restart and the byte 0xff.
        let whole = [
            &[0xff, 0xd8, 0xff, 0xe1, 0x00, 0x04, 0xff, 0xd9][..],
            &[0xff, 0xda, 0x00, 0x03, 0x01, 0x12, 0xff, 0x00, 0xff, 0xd1, 0x34],
            // A segment after it, bytes that are none, and fill bytes before the end.
            &[0xff, 0xfe, 0x00, 0x02, 0xff, 0x00, 0x12, 0xff, 0xff, 0xd9, 0x77],
        ]
        .concat();
        assert!(has_end(&whole));
        for length in 0..whole.len() - 1 {
            assert!(!has_end(&whole[..length]), "{length}");
        }
    }
}
