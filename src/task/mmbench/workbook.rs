//! The first sheet of an Excel workbook, read with bounds.
//!
//! The reader is written here, over `zip` and `quick-xml`, since readers of whole workbooks make a table of every cell
//! up to the last one: a file of a kilobyte that names a far cell asks for hundreds of gigabytes.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use quick_xml::{
    Reader,
    events::{BytesRef, BytesStart, Event},
};
use zip::ZipArchive;

/// The largest part of a workbook that is read, in bytes after unpacking. MMBench's whole table takes some 5 MB.
const LARGEST_PART: u64 = 64 << 20;

/// The cells of a row that are not empty, by their columns, from 0 on.
pub(super) type Row = BTreeMap<usize, String>;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// The rows of the first sheet that are not empty.
///
/// # Errors
/// A sentence, when it is no workbook, or damaged, or too large.
pub(super) fn rows(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|_| "it is no Excel workbook (.xlsx), or damaged")?;
    let sheet = first_sheet(&mut archive)?;
    let shared = match part(&mut archive, "xl/sharedStrings.xml")? {
        Some(text) => shared_strings(&text)?,
        None => Vec::new(),
    };
    let text = part(&mut archive, &sheet)?
        .ok_or_else(|| format!("the workbook has no {}", secateur_weights::printable(&sheet)))?;
    cells(&text, &shared)
}

/// The text of a part; `None` where there is none of that name.
fn part(archive: &mut Archive, name: &str) -> Result<Option<String>, String> {
    let shown = secateur_weights::printable(name);
    let Ok(file) = archive.by_name(name) else { return Ok(None) };
    let mut text = String::new();
    let read = file.take(LARGEST_PART + 1).read_to_string(&mut text);
    if text.len() as u64 > LARGEST_PART {
        return Err(format!("its part {shown} has more than {} MB, unpacked", LARGEST_PART >> 20));
    }
    read.map_err(|_| format!("its part {shown} cannot be unpacked, or is no text"))?;
    Ok(Some(text))
}

/// The name of the first sheet's part.
fn first_sheet(archive: &mut Archive) -> Result<String, String> {
    const USUAL: &str = "xl/worksheets/sheet1.xml";
    let (Some(book), Some(relations)) =
        (part(archive, "xl/workbook.xml")?, part(archive, "xl/_rels/workbook.xml.rels")?)
    else {
        return Ok(USUAL.to_owned());
    };
    let id = first(&book, "sheet", |start| attribute(start, "r:id"))?;
    let target =
        first(&relations, "Relationship", |start| attribute(start, "Target").filter(|_| attribute(start, "Id") == id))?;
    let target = target.filter(|_| id.is_some());
    Ok(target.map_or_else(
        || USUAL.to_owned(),
        |target| match target.strip_prefix('/') {
            Some(whole) => whole.to_owned(),
            None => format!("xl/{target}"),
        },
    ))
}

/// The first value that `of` finds in an element called `name`; `None` if it finds none.
fn first(text: &str, name: &str, of: impl Fn(&BytesStart) -> Option<String>) -> Result<Option<String>, String> {
    let mut reader = Reader::from_str(text);
    loop {
        match event(&mut reader)? {
            Event::Start(start) | Event::Empty(start) if start.local_name().as_ref() == name => {
                if let Some(found) = of(&start) {
                    return Ok(Some(found));
                }
            }
            Event::Eof => return Ok(None),
            _ => {}
        }
    }
}

/// The shared strings, which cells refer to by number.
fn shared_strings(text: &str) -> Result<Vec<String>, String> {
    let mut reader = Reader::from_str(text);
    let (mut strings, mut read) = (Vec::new(), Reading::default());
    loop {
        match event(&mut reader)? {
            Event::Start(start) => read.start(&start),
            Event::End(end) if end.local_name().as_ref() == "si" => strings.push(std::mem::take(&mut read.text)),
            Event::Eof => return Ok(strings),
            other => read.other(&other),
        }
    }
}

/// The cells of a sheet, row by row.
fn cells(text: &str, shared: &[String]) -> Result<Vec<Row>, String> {
    let mut reader = Reader::from_str(text);
    let (mut rows, mut row, mut next) = (Vec::new(), Row::new(), 0);
    let (mut kind, mut read) = (String::new(), Reading::default());
    loop {
        match event(&mut reader)? {
            Event::Start(start) if start.local_name().as_ref() == "c" => {
                kind = attribute(&start, "t").unwrap_or_default();
                next = attribute(&start, "r").and_then(|place| column(&place)).unwrap_or(next);
                read = Reading::default();
            }
            Event::Start(start) => read.start(&start),
            Event::End(end) => match end.local_name().as_ref() {
                "c" => {
                    let text = value(&kind, std::mem::take(&mut read.text), shared)?;
                    if !text.is_empty() {
                        row.insert(next, text);
                    }
                    next += 1;
                }
                "row" => {
                    next = 0;
                    rows.extend(Some(std::mem::take(&mut row)).filter(|row| !row.is_empty()));
                }
                _ => read.inside = false,
            },
            Event::Eof => return Ok(rows),
            other => read.other(&other),
        }
    }
}

/// The value of a cell of type `kind`.
fn value(kind: &str, text: String, shared: &[String]) -> Result<String, String> {
    match kind {
        "s" => {
            let found = text.trim().parse::<usize>().ok().and_then(|number| shared.get(number));
            found.cloned().ok_or_else(|| {
                format!(
                    "a cell refers to the text number {}, of {}",
                    secateur_weights::printable(text.trim()),
                    shared.len()
                )
            })
        }
        "" | "n" => Ok(match text.trim().parse::<f64>() {
            Ok(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
            _ => text,
        }),
        _ => Ok(text),
    }
}

/// The text in the elements `t` and `v`, of which a cell may have several.
#[derive(Default)]
struct Reading {
    text: String,
    inside: bool,
    /// Whether the reader is inside of a phonetic reading aid, which is no part of the text.
    aside: bool,
}

impl Reading {
    fn start(&mut self, start: &BytesStart) {
        match start.local_name().as_ref() {
            "t" | "v" => self.inside = !self.aside,
            "rPh" => self.aside = true,
            _ => {}
        }
    }

    fn other(&mut self, event: &Event) {
        match event {
            Event::Text(text) if self.inside => self.text.push_str(text),
            Event::CData(text) if self.inside => self.text.push_str(text),
            Event::GeneralRef(reference) if self.inside => self.text.extend(character(reference)),
            Event::End(end) if matches!(end.local_name().as_ref(), "t" | "v") => self.inside = false,
            Event::End(end) if end.local_name().as_ref() == "rPh" => self.aside = false,
            _ => {}
        }
    }
}

/// The character that a reference like `&amp;` or `&#10;` stands for.
fn character(reference: &BytesRef) -> Option<char> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Some(character);
    }
    match &reference[..] {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

fn event<'a>(reader: &mut Reader<&'a [u8]>) -> Result<Event<'a>, String> {
    reader.read_event().map_err(|_| "one of its parts is no XML".to_owned())
}

fn attribute(start: &BytesStart, name: &str) -> Option<String> {
    // The check for names that are there twice is off: it takes quadratic time.
    let mut attributes = start.attributes();
    let found = attributes.with_checks(false).flatten().find(|attribute| attribute.key.as_ref() == name);
    found.map(|attribute| attribute.value.into_owned())
}

/// The column of a place like `AB12`, from 0 on; `None` beyond the last that Excel has.
fn column(place: &str) -> Option<usize> {
    let letters: Vec<usize> =
        place.bytes().take_while(u8::is_ascii_uppercase).map(|letter| usize::from(letter - b'A') + 1).collect();
    let number = letters.iter().take(4).fold(0, |number, letter| 26 * number + letter);
    (1..=16_384).contains(&number).then(|| number - 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;
    use crate::mutants;

    fn workbook(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, text) in parts {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    const SHEET: &str = "xl/worksheets/sheet1.xml";

    #[test]
    fn cells_of_every_kind_are_read() {
        let shared =
            "<sst><si><t>in&amp;dex</t></si><si><r><t>a </t></r><r><t>b</t></r><rPh><t>no</t></rPh></si></sst>";
        let sheet = "<worksheet><sheetData><row><c r=\"A1\" t=\"s\"><v>0</v></c><c t=\"s\"><v>1</v></c></row><row/>\
                     <row><c r=\"A9\"><v>7.0</v></c><c r=\"XFD9\" t=\"inlineStr\"><is><t>&lt;x&#33;</t></is></c></row></sheetData></worksheet>";
        let rows = rows(&workbook(&[("xl/sharedStrings.xml", shared), (SHEET, sheet)])).unwrap();
        let row = |cells: &[(usize, &str)]| cells.iter().map(|(at, text)| (*at, (*text).to_owned())).collect::<Row>();
        assert_eq!(rows, [row(&[(0, "in&dex"), (1, "a b")]), row(&[(0, "7"), (16_383, "<x!")])]);
    }

    #[test]
    fn what_is_damaged_or_unpacks_to_much_ends_in_a_sentence() {
        let sheet = |cells: &str| workbook(&[(SHEET, &format!("<worksheet><row>{cells}</row></worksheet>"))]);
        let far = rows(&sheet("<c r=\"ZZZZZZZZZZ99999999999999999999\"><v>1</v></c>")).unwrap();
        assert_eq!(far.len(), 1);
        for (bytes, expected) in [
            (b"nonsense".to_vec(), "no Excel workbook"),
            (sheet("<c t=\"s\"><v>4294967296</v></c>"), "the text number 4294967296, of 0"),
            (sheet("<c"), "no XML"),
            (workbook(&[]), "has no xl/worksheets/sheet1.xml"),
            (workbook(&[(SHEET, &" ".repeat((LARGEST_PART + 1) as usize))]), "more than 64 MB"),
        ] {
            let error = rows(&bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn damaged_copies_end_in_a_sentence() {
        let sheet =
            "<worksheet><row><c r=\"A1\" t=\"s\"><v>0</v></c></row><row><c r=\"A2\"><v>7</v></c></row></worksheet>";
        let whole = workbook(&[("xl/sharedStrings.xml", "<sst><si><t>index</t></si></sst>"), (SHEET, sheet)]);
        let found = (0..mutants::count()).map(|number| rows(&mutants::mutant(&whole, number)));
        let refused = found.filter_map(Result::err).inspect(|error| assert!(!error.is_empty())).count();
        assert!(refused > 10, "{refused}");
        // Damaged copies of the sheet itself, in a workbook that unpacks.
        for number in 0..mutants::count() {
            let sheet = String::from_utf8_lossy(&mutants::mutant(sheet.as_bytes(), number)).into_owned();
            let _ = rows(&workbook(&[(SHEET, &sheet)]));
        }
    }
}
