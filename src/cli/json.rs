//! Results as JSON for scripts.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::terminal;

/// The version of the keys; a key that changes its meaning, or goes, raises it.
const SCHEMA: u32 = 1;

/// A result with the version of its keys.
#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    result: &'a T,
}

/// Writes numbers with the digits that people read: 49.212427, not 49.212427000000005.
struct Readable;

impl Formatter for Readable {
    fn write_f64<W: Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_f64(writer, readable(value))
    }
}

/// The number with 12 digits, which hides what arithmetic leaves in the last ones and keeps every f32.
pub(super) fn readable(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// Writes one JSON object as a line.
pub(super) fn print_json(result: &impl Serialize) -> anyhow::Result<()> {
    let mut line = Vec::new();
    Versioned { schema: SCHEMA, result }.serialize(&mut Serializer::with_formatter(&mut line, Readable))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", terminal::for_stdout(std::str::from_utf8(&line)?))?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_people_read() {
        let read = [49.212427000000005, 0.1 + 0.2, 1.0, 1e-9 / 3.0, 1254.8];
        assert_eq!(read.map(readable), [49.212427, 0.3, 1.0, 3.33333333333e-10, 1254.8]);
        for number in [0.1_f32, 1.0 / 3.0, f32::MAX, f32::MIN_POSITIVE] {
            assert_eq!(readable(number.into()) as f32, number);
        }
    }
}
