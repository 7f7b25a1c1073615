//! Damaged copies of a file, the same ones in every run.

#![allow(unreachable_pub, reason = "unit tests include this file, too")]

/// How many of a reader: a few hundred by default, as many as `SECATEUR_TEST_MUTANTS` says otherwise.
pub fn count() -> u64 {
    std::env::var("SECATEUR_TEST_MUTANTS").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

/// The copy number `number`: bits are flipped, a part is cut out, doubled or overwritten, or the end is missing.
pub fn mutant(file: &[u8], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5ec4_7e12;
    let mut random = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % below.max(1) as u64) as usize
    };
    let mut bytes = file.to_vec();
    let (at, length) = (random(bytes.len()), 1 + random(64));
    let end = (at + length).min(bytes.len());
    match random(7) {
        0 => (0..1 + random(4)).for_each(|_| {
            let at = random(bytes.len());
            bytes[at] ^= 1 << random(8);
        }),
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        4 => bytes[at..end].fill([0, 0xff, b'9', b'{', 0x80][random(5)]),
        5 => {
            let huge: &[u8] =
                [&b"99999999999999999999"[..], b"-1", b"1e999", b"null", b"\xff\xff\xff\xff\xff\xff\xff\x7f"]
                    [random(5)];
            bytes.splice(at..end.min(at + huge.len()), huge.iter().copied());
        }
        // The head of a file says what the rest is.
        _ => {
            let at = random(bytes.len().min(64));
            bytes[at] = random(256) as u8;
        }
    }
    bytes
}
