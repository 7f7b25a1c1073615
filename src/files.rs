//! Files that people edit, read in all their usual forms, and files that are written whole or not at all.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use secateur_weights::{TextError, json_words, parse_json};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, words::excerpt};

/// The error for a web address in place of a file; `None` if `path` is no address.
pub(crate) fn address(path: &Path) -> Option<Error> {
    let text = path.to_str()?;
    let (scheme, rest) = text.split_once(':')?;
    if !rest.starts_with('/') && scheme != "data" {
        return None;
    }
    let known = ["http", "https", "s3", "gs", "hf", "ftp", "file", "data"];
    known.iter().any(|known| scheme.eq_ignore_ascii_case(known)).then(|| {
        let reason = match scheme.to_ascii_lowercase().as_str() {
            "file" => "an address, and a path is expected: leave out `file://`",
            _ => "an address, and nothing is fetched from there: download it, and give the path of the file",
        };
        // An address may hold a whole image.
        Error::Image { path: excerpt(text).into(), reason: reason.to_owned() }
    })
}

/// The text of a file; `action` is what cannot be done without it.
///
/// # Errors
/// When the file cannot be read, is in an unknown encoding, or is a pointer or a web page in its place.
pub(crate) fn read_text(path: &Path, action: &'static str) -> Result<String, Error> {
    if let Some(error) = address(path) {
        return Err(error);
    }
    secateur_weights::read_text(path).map_err(|error| match error {
        TextError::Io(error) => Error::io(path, action)(error),
        TextError::Content(reason) => Error::data(path, reason),
    })
}

/// The bytes of a regular file. Other files are refused: reading a pipe that nobody writes to would wait for ever.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_bytes(path: &Path, action: &'static str) -> Result<Vec<u8>, Error> {
    if let Some(error) = address(path) {
        return Err(error);
    }
    check_regular(path, action)?;
    std::fs::read(path).map_err(Error::io(path, action))
}

/// Refuses anything but a regular file: pipes, sockets, devices.
///
/// # Errors
/// When the path is not there, or is something else than a file.
pub(crate) fn check_regular(path: &Path, action: &'static str) -> Result<(), Error> {
    let meta = std::fs::metadata(path).map_err(Error::io(path, action))?;
    match meta.is_file() || meta.is_dir() {
        true => Ok(()),
        false => Err(Error::data(path, "it is no regular file, but a pipe, a socket or a device")),
    }
}

/// The value of a JSON file.
///
/// # Errors
/// As [`read_text`], or when the text is no JSON or not of this form; the error names the field.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, action: &'static str) -> Result<T, Error> {
    parse_json(&read_text(path, action)?).map_err(|reason| Error::data(path, reason))
}

/// The objects of a file that has one a line, indented objects, or one list of them; `what` is the noun for an object.
///
/// # Errors
/// As [`read_text`], or when an object is of another form; the error names its line.
pub(crate) fn read_objects<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Vec<T>, Error> {
    parse_objects(&read_text(path, "cannot be read")?, what).map_err(|reason| Error::data(path, reason))
}

/// The objects in a text that has one a line, indented objects, or one list of them.
///
/// # Errors
/// A sentence that names the line.
pub(crate) fn parse_objects<T: DeserializeOwned>(text: &str, what: &str) -> Result<Vec<T>, String> {
    let objects = objects(text)?;
    let parse = |Object { place, value }: Object| {
        let value = value.map_err(|reason| format!("{place} is no {what}: {reason}"))?;
        from_value(value).map_err(|reason| format!("{place} is no {what}: {reason}"))
    };
    objects.into_iter().map(parse).collect()
}

/// An object of a file.
pub(crate) struct Object {
    /// The place of the object: `line 3` or `entry 3 of the list`.
    pub(crate) place: String,
    /// The object, or the reason why it is no JSON.
    pub(crate) value: Result<Value, String>,
}

/// All objects of a text, in any of the three forms.
///
/// # Errors
/// When the text begins as a list and is not one.
pub(crate) fn objects(text: &str) -> Result<Vec<Object>, String> {
    if text.trim_start().starts_with('[') {
        let list: Vec<Value> =
            parse_json(text).map_err(|reason| format!("it begins as one JSON list, and {reason}"))?;
        let entry = |(i, value)| Object { place: format!("entry {} of the list", i + 1), value: Ok(value) };
        return Ok(list.into_iter().enumerate().map(entry).collect());
    }
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
    let first: Option<Result<Value, _>> = lines.first().map(|(_, line)| serde_json::from_str(line));
    if let Some(Err(error)) = first
        && error.is_eof()
        && let Some(objects) = indented(text)
    {
        return Ok(objects);
    }
    let line = |(i, line): (usize, &str)| Object { place: format!("line {}", i + 1), value: parse_json(line) };
    Ok(lines.into_iter().map(line).collect())
}

/// Objects that take several lines each; `None` if the text has another form.
fn indented(text: &str) -> Option<Vec<Object>> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut objects = Vec::new();
    loop {
        let rest = &text[stream.byte_offset()..];
        let start = text.len() - rest.trim_start().len();
        let line = 1 + text[..start].matches('\n').count();
        match stream.next() {
            None => return Some(objects),
            Some(value) => objects.push(Object { place: format!("line {line}"), value: Ok(value.ok()?) }),
        }
    }
}

/// Reads a value of type `T` from a JSON value.
///
/// # Errors
/// A sentence that names the field.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    T::deserialize(deserializer).map_err(|error| json_words(&error, &track.path().to_string()))
}

/// Writes a value as indented JSON, which people can read, too.
///
/// # Errors
/// As [`write_file`].
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|_| Error::data(path, "cannot be written: a value is none that JSON has"))?;
    write_file(path, (text + "\n").as_bytes())
}

/// Writes a draft beside the file and renames it: the path never holds half a file. A link stays a link. A stream, like
/// a pipe or `/dev/stdout`, is written to directly.
///
/// # Errors
/// When the file cannot be written; the old file stays as it was.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let fail = |error| Error::io(path, "cannot be written")(error);
    let there = path.metadata().ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) || is_own_stream(path) {
        return write_stream(path, bytes).map_err(fail);
    }
    let place = match path.read_link() {
        Ok(target) => path.parent().unwrap_or(Path::new("")).join(target),
        Err(_) => path.to_owned(),
    };
    remove_old_drafts(&place);
    // Another process may remove a draft that is not locked yet, as if it were an old one.
    let again = |error: &io::Error| error.kind() == io::ErrorKind::NotFound && place.parent().is_some_and(Path::is_dir);
    let mut written = replace(&place, bytes, there.as_ref());
    for _ in 0..3 {
        if written.as_ref().is_err_and(again) {
            written = replace(&place, bytes, there.as_ref());
        }
    }
    written.map_err(fail)
}

/// Writes a draft beside `place`, with the permissions of `there`, and renames it to `place`.
fn replace(place: &Path, bytes: &[u8], there: Option<&Metadata>) -> io::Result<()> {
    // The draft's name is random: several processes may write the same file.
    let draft = place.with_added_extension(format!("{:016x}.part", rand::random::<u64>()));
    let written = write_new(&draft, bytes).and_then(|_locked| {
        if let Some(there) = there {
            // Not every file system has permissions to keep.
            let _ = std::fs::set_permissions(&draft, there.permissions());
        }
        std::fs::rename(&draft, place)
    });
    // A draft that could not be renamed is removed.
    written.inspect_err(|_| drop(std::fs::remove_file(&draft)))
}

/// Removes drafts of `place` that nobody has locked: processes that were killed while they wrote left them.
fn remove_old_drafts(place: &Path) {
    // The age of drafts that are removed where the file system has no locks.
    const OLD: Duration = Duration::from_secs(600);
    let (Some(folder), Some(name)) = (place.parent(), place.file_name().and_then(|name| name.to_str())) else { return };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let draft = found.to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".part"));
        let is_draft = draft.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !is_draft {
            continue;
        }
        let age = entry.metadata().ok().and_then(|file| file.modified().ok()?.elapsed().ok()).unwrap_or_default();
        let free = match File::open(entry.path()).map(|file| file.try_lock()) {
            Ok(Ok(())) => true,
            Ok(Err(TryLockError::WouldBlock)) => false,
            _ => age > OLD,
        };
        if free {
            // Another process may have removed it.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Writes to a pipe, a terminal, or a stream that this process has open.
fn write_stream(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is = |stream: &str, number: &str| {
        path == Path::new(stream) || is_own_stream(path) && path.file_name().is_some_and(|name| name == number)
    };
    // If stdout leads to a file, opening the file anew would write over what is printed later.
    if is("/dev/stdout", "1") {
        let mut out = io::stdout().lock();
        return out.write_all(bytes).and_then(|()| out.flush());
    }
    if is("/dev/stderr", "2") {
        return io::stderr().write_all(bytes);
    }
    OpenOptions::new().append(true).open(path)?.write_all(bytes)
}

/// Whether the path names a stream of this process, which may lead to a regular file: `/dev/stdout`, `/dev/fd/3`,
/// `/proc/self/fd/3`.
fn is_own_stream(path: &Path) -> bool {
    let named = ["/dev/stdout", "/dev/stderr"].iter().any(|stream| path == Path::new(stream));
    let mut parts = path.components().skip(1).map(|part| part.as_os_str().to_string_lossy());
    let first = [parts.next(), parts.next(), parts.next()];
    let numbered = matches!(
        first.each_ref().map(Option::as_deref),
        [Some("dev"), Some("fd"), Some(_)] | [Some("proc"), Some(_), Some("fd")]
    );
    named || path.is_absolute() && numbered
}

/// Makes a new file; a link that someone else put there is not followed.
///
/// The file is returned with its lock, which says that it is in use.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    // Not every file system has locks.
    let _ = file.try_lock();
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Line {
        id: u32,
    }

    #[test]
    fn objects_are_read_in_all_three_forms() {
        let expected = [Line { id: 1 }, Line { id: 2 }];
        for text in
            ["{\"id\": 1}\n\n{\"id\": 2}\n", "[{\"id\": 1}, {\"id\": 2}]", "{\n  \"id\": 1\n}\n{\n  \"id\": 2\n}\n"]
        {
            assert_eq!(parse_objects::<Line>(text, "line").as_deref(), Ok(&expected[..]), "{text}");
        }
        for (text, expected) in [
            ("{\"id\": 1}\n{\"id\": \"x\"}", "line 2 is no question: the field `id` holds the text \"x\""),
            ("{\"id\": 1}\nnonsense", "line 2 is no question: it is no JSON"),
            ("[{\"id\": 1}, {}]", "entry 2 of the list is no question: the field `id` is missing"),
            ("[{\"id\": 1},", "it begins as one JSON list, and it is cut short"),
        ] {
            let error = parse_objects::<Line>(text, "question").unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn streams_are_known_by_what_they_are() {
        assert!(is_own_stream(Path::new("/dev/stdout")) && is_own_stream(Path::new("/proc/self/fd/1")));
        for path in ["/dev/shm/upload.json", "dev/fd/3", "/devices/fd/1", "/dev"] {
            assert!(!is_own_stream(Path::new(path)), "{path}");
        }
    }
}
