//! Text files that people edit and tools write: byte-order marks, other encodings, files that are something else, and
//! errors of JSON in plain words.

use std::{io, path::Path};

use serde::de::DeserializeOwned;

/// The reason why a text file is not read.
#[derive(Debug)]
pub enum TextError {
    /// An error of the system.
    Io(io::Error),
    /// A sentence about contents that are no text, or another text than is expected.
    Content(String),
}

/// The text of a file: UTF-8 with or without a byte-order mark, or UTF-16 with one.
///
/// # Errors
/// When the file cannot be read, is in another encoding, or is a Git LFS pointer or a web page in its place.
pub fn read_text(path: &Path) -> Result<String, TextError> {
    let meta = std::fs::metadata(path).map_err(TextError::Io)?;
    if !meta.is_file() && !meta.is_dir() {
        // Only a regular file is read: a pipe that nobody writes to would be waited for, for ever.
        return Err(TextError::Content("it is no regular file".to_owned()));
    }
    decode_text(std::fs::read(path).map_err(TextError::Io)?).map_err(TextError::Content)
}

/// The text in the bytes of a file; see [`read_text`].
///
/// # Errors
/// A sentence about what the bytes are instead.
pub fn decode_text(bytes: Vec<u8>) -> Result<String, String> {
    if let Some(impostor) = impostor(&bytes) {
        return Err(impostor.to_owned());
    }
    let utf16 = |from_bytes: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].chunks_exact(2).map(|pair| from_bytes([pair[0], pair[1]])).collect();
        String::from_utf16(&units).map_err(|_| "it begins like UTF-16 and is none; save it as UTF-8".to_owned())
    };
    match &bytes[..] {
        [0xff, 0xfe, ..] => return utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => return utf16(u16::from_be_bytes),
        _ => {}
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        format!("line {line} is not in UTF-8; save the file as UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The sentence about bytes that are a Git LFS pointer or a web page in place of a file; `None` for other bytes.
pub fn impostor(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    if start.starts_with(b"version https://git-lfs") || start.starts_with(b"version https://hawser") {
        return Some(
            "it is a Git LFS pointer, which only names the file: `git lfs pull` in its folder fetches it, or download it anew",
        );
    }
    let begins = |with: &[u8]| start.get(..with.len()).is_some_and(|found| found.eq_ignore_ascii_case(with));
    let page = begins(b"<!doctype html") || begins(b"<html") || begins(b"<head") || begins(b"<?xml");
    page.then_some("it is a web page in place of the file, as a download leaves it that was refused: download it anew")
}

/// The value in JSON text.
///
/// # Errors
/// A sentence that names the field, what is found there and what is expected.
pub fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = error.path().to_string();
        json_words(error.inner(), &field)
    })?;
    deserializer.end().map_err(|error| json_words(&error, "."))?;
    Ok(value)
}

/// The error of a JSON text in plain words. `field` is the place of the error, as `a.b[0]`; `.` is the whole text.
pub fn json_words(error: &serde_json::Error, field: &str) -> String {
    use serde_json::error::Category;
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Io => "it cannot be read".to_owned(),
        Category::Eof if line <= 1 && column == 0 => "it is empty, where JSON is expected".to_owned(),
        Category::Eof => format!("it is cut short: the JSON is not finished where it ends, in line {line}"),
        Category::Syntax if error.to_string().contains("recursion limit") => "it is nested too deeply".to_owned(),
        Category::Syntax => format!("it is no JSON from line {line}, column {column} on"),
        Category::Data => {
            let text = error.to_string();
            let text = text.rsplit_once(" at line ").map_or(&text[..], |(text, _)| text);
            data_words(text, field)
        }
    }
}

/// The error of a value in plain words, from serde's description of it.
fn data_words(text: &str, field: &str) -> String {
    let whole = field.is_empty() || field == "." || field == "?";
    let here = if whole { "it".to_owned() } else { format!("the field `{field}`") };
    let quoted = |text: &str| text.split('`').nth(1).unwrap_or_default().to_owned();
    let path = |name: &str| if whole { name.to_owned() } else { format!("{field}.{name}") };
    if text.starts_with("missing field") {
        return format!("the field `{}` is missing", path(&quoted(text)));
    }
    if text.starts_with("duplicate field") {
        return format!("the field `{}` is there twice", path(&quoted(text)));
    }
    if let Some((_, known)) = text.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected ")) {
        return format!("{here} is `{}`, which is not known; {} is", quoted(text), known.trim_start_matches("one of "));
    }
    let parts = ["invalid type: ", "invalid value: "].iter().find_map(|start| text.strip_prefix(start));
    if let Some((found, expected)) = parts.and_then(|rest| rest.rsplit_once(", expected ")) {
        return format!("{here} holds {}, where {} is expected", found_words(found), expected_words(expected));
    }
    if let Some((count, expected)) =
        text.strip_prefix("invalid length ").and_then(|rest| rest.split_once(", expected "))
    {
        return format!("{here} holds a list of {count}, where {} is expected", expected_words(expected));
    }
    format!("{here} does not hold what is expected there")
}

fn found_words(found: &str) -> String {
    let inside = |kind: &str| found.strip_prefix(kind).map(|rest| rest.trim().trim_matches('`').to_owned());
    if let Some(text) = inside("string ") {
        return format!("the text {text}");
    }
    let number = inside("integer ").or_else(|| inside("floating point ")).or_else(|| inside("boolean "));
    number.unwrap_or_else(|| match found {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        _ => "null".to_owned(),
    })
}

fn expected_words(expected: &str) -> String {
    let length = |expected: &str| expected.rsplit(' ').next().and_then(|word| word.parse::<usize>().ok());
    match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number from 0 on".to_owned(),
        "isize" | "i64" | "i32" | "i16" | "i8" => "a whole number".to_owned(),
        "f64" | "f32" => "a number".to_owned(),
        "a string" | "string" | "str" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        // A field that takes two forms says so itself.
        expected if expected.starts_with("a text or ") => expected.to_owned(),
        expected if expected.contains("tuple") || expected.contains("array of length") => {
            length(expected).map_or_else(|| "a list".to_owned(), |length| format!("a list of {length}"))
        }
        _ => "an object".to_owned(),
    }
}

/// The text as it can be shown in a sentence: control characters are spelt out, all others stay.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

/// The operating system's words for a failure, without the error number.
pub fn system_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Config {
        layers: usize,
        size: [f64; 2],
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Inner {
        layer: i64,
    }

    #[test]
    fn every_encoding_that_editors_write_is_read() {
        let text = "{\"ä\": 1}";
        let utf16 = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
            [mark.to_vec(), text.encode_utf16().flat_map(bytes).collect()].concat()
        };
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            utf16([0xff, 0xfe], u16::to_le_bytes),
            utf16([0xfe, 0xff], u16::to_be_bytes),
        ] {
            assert_eq!(decode_text(bytes).as_deref(), Ok(text));
        }
        let error = decode_text(b"a\nb\xe4".to_vec()).unwrap_err();
        assert!(error.contains("line 2") && error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn pointers_and_pages_are_told() {
        for (bytes, named) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"[..], "git lfs pull"),
            (b"\n <!DOCTYPE html><html>", "web page"),
            (b"<HTML><body>", "web page"),
        ] {
            let error = decode_text(bytes.to_vec()).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        assert_eq!(impostor(b"{}"), None);
    }

    #[test]
    fn errors_name_field_found_and_expected() {
        for (text, expected) in [
            ("", "it is empty, where JSON is expected"),
            ("{\"layers\": 1,", "it is cut short: the JSON is not finished where it ends, in line 1"),
            ("{\n nonsense", "it is no JSON from line 2, column 2 on"),
            ("{}", "the field `layers` is missing"),
            ("[]", "it holds a list of 0, where an object is expected"),
            ("{\"layers\": -1}", "the field `layers` holds -1, where a whole number from 0 on is expected"),
            (
                "{\"layers\": \"x\"}",
                "the field `layers` holds the text \"x\", where a whole number from 0 on is expected",
            ),
            ("{\"layers\": 1, \"size\": [1.0]}", "the field `size` holds a list of 1, where a list of 2 is expected"),
            ("{\"layers\": 1, \"size\": [1, 2], \"inner\": {}}", "the field `inner.layer` is missing"),
            (
                "{\"layers\": 1, \"size\": [1, 2], \"inner\": {\"layer\": [-2]}}",
                "the field `inner.layer` holds a list, where a whole number is expected",
            ),
        ] {
            assert_eq!(parse_json::<Config>(text).unwrap_err(), expected, "{text}");
        }
    }
}
