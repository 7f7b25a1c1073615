//! Rows of a parquet file, by the names of their columns.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use parquet::{
    basic::Compression,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row, reader::RowIter},
};
use secateur_weights::impostor;

use crate::{Error, unwind::guarded};

/// A row of a parquet file.
pub struct Record {
    path: PathBuf,
    row: Row,
    number: usize,
}

/// The number of rows that are unpacked at a time. Each holds an image, and its own copy of a value that rows share.
const BATCH: usize = 8;

/// The longest text that is read, in bytes: far more than a question has. Rows can share a text, which is then written
/// for each of them.
const MAX_TEXT: usize = 1 << 18;

/// The rows of a file, read one by one when they are asked for. The library panics on some damaged files.
pub(super) fn read(path: &Path) -> Result<impl Iterator<Item = Result<Record, Error>>, Error> {
    let damaged = || Error::data(path, "not a parquet file, or damaged; remove it, and it is fetched again");
    check_start(path)?;
    let file = File::open(path).map_err(Error::io(path, "cannot be read"))?;
    let reader = guarded(|| SerializedFileReader::new(file)).and_then(Result::ok).ok_or_else(damaged)?;
    let columns = reader.metadata().row_groups().iter().flat_map(|group| group.columns());
    if let Some(column) = columns.into_iter().find(|column| !is_read(column.compression())) {
        let (name, how) = (column.column_path().string(), column.compression());
        let reason = format!(
            "its column `{}` is compressed with {how}, which is not read; write the file again with zstd or snappy",
            secateur_weights::printable(&name)
        );
        return Err(Error::data(path, reason));
    }
    let rows = guarded(|| RowIter::from_file_into(Box::new(reader)).with_batch_size(BATCH)).ok_or_else(damaged)?;
    let (path, mut rows, mut number) = (path.to_owned(), Some(rows), 0);
    Ok(std::iter::from_fn(move || {
        let next = guarded(|| rows.as_mut()?.next());
        let record = match next {
            Some(None) => return None,
            Some(Some(Ok(row))) => Ok(Record { path: path.clone(), row, number }),
            Some(Some(Err(_))) | None => {
                // Nothing can be read after a damaged row.
                rows = None;
                let reason = format!("row {number}: the file is damaged; remove it, and it is fetched again");
                Err(Error::data(&path, reason))
            }
        };
        number += 1;
        Some(record)
    }))
}

/// Refuses a pointer or a web page that lies in place of a file.
fn check_start(path: &Path) -> Result<(), Error> {
    let mut start = Vec::new();
    let file = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    file.map_err(Error::io(path, "cannot be read"))?;
    impostor(&start).map_or(Ok(()), |impostor| Err(Error::data(path, impostor)))
}

fn is_read(compression: Compression) -> bool {
    !matches!(compression, Compression::LZO)
}

impl Record {
    /// Whether there is a column of this name with a value.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some_and(|field| !matches!(field, Field::Null))
    }

    /// The column `name` as text; numbers are spelt out, and a missing value is an empty text.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn text(&self, name: &str) -> Result<String, Error> {
        match self.field(name)? {
            Field::Null => Ok(String::new()),
            field => match spelt(field) {
                None => Err(self.error(&format!("column `{name}` holds no text"))),
                Some(text) if text.len() > MAX_TEXT => {
                    let length = text.len();
                    Err(self
                        .error(&format!("column `{name}` holds a text of {length} bytes; up to {MAX_TEXT} are read")))
                }
                Some(text) => Ok(text),
            },
        }
    }

    /// The column `name` as the name of something, which must not be empty.
    ///
    /// # Errors
    /// When there is no such column, or it holds nothing, or something else than text.
    pub fn name(&self, name: &str) -> Result<String, Error> {
        Some(self.text(name)?)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| self.error(&format!("column `{name}` is empty")))
    }

    /// The column `name` as a whole number.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn integer(&self, name: &str) -> Result<i64, Error> {
        self.text(name)?.parse().map_err(|_| self.error(&format!("column `{name}` holds no whole number")))
    }

    /// The column `name` as a list of texts; empty where there is no list.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        match self.field(name)? {
            Field::Null => Ok(Vec::new()),
            Field::ListInternal(list) => {
                let texts = list.elements().iter().map(spelt).collect::<Option<Vec<_>>>();
                texts.ok_or_else(|| self.error(&format!("column `{name}` holds no list of texts")))
            }
            _ => Err(self.error(&format!("column `{name}` holds no list"))),
        }
    }

    /// The bytes of an image, which is a group with a column `bytes`; `None` where there is no image.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn image(&self, name: &str) -> Result<Option<&[u8]>, Error> {
        match self.field(name)? {
            Field::Null => Ok(None),
            Field::Group(group) => match group.get_column_iter().find(|(name, _)| *name == "bytes") {
                Some((_, Field::Bytes(bytes))) => Ok(Some(bytes.data())),
                Some((_, Field::Null)) => Ok(None),
                _ => Err(self.error(&format!("column `{name}` has no bytes of an image"))),
            },
            _ => Err(self.error(&format!("column `{name}` holds no image"))),
        }
    }

    /// The images of a list, or the only image.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn images(&self, name: &str) -> Result<Vec<&[u8]>, Error> {
        let Field::ListInternal(list) = self.field(name)? else {
            return Ok(self.image(name)?.into_iter().collect());
        };
        let images = list.elements().iter().map(|field| match field {
            Field::Group(group) => bytes_of(group),
            _ => None,
        });
        let images: Option<Vec<&[u8]>> = images.collect();
        images.ok_or_else(|| self.error(&format!("column `{name}` has no bytes of an image")))
    }

    /// An error about this row.
    pub fn error(&self, reason: &str) -> Error {
        Error::data(&self.path, format!("row {}: {reason}", self.number))
    }

    fn field(&self, name: &str) -> Result<&Field, Error> {
        self.find(name).ok_or_else(|| {
            let there: Vec<&str> = self.row.get_column_iter().map(|(name, _)| name.as_str()).collect();
            self.error(&format!("there is no column `{name}`, only {}", there.join(", ")))
        })
    }

    fn find(&self, name: &str) -> Option<&Field> {
        self.row.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field)
    }
}

/// The bytes in an image's group.
fn bytes_of(group: &Row) -> Option<&[u8]> {
    group.get_column_iter().find_map(|(name, field)| match field {
        Field::Bytes(bytes) if name == "bytes" => Some(bytes.data()),
        _ => None,
    })
}

fn spelt(field: &Field) -> Option<String> {
    match field {
        Field::Str(text) => Some(text.clone()),
        Field::Byte(number) => Some(number.to_string()),
        Field::Short(number) => Some(number.to_string()),
        Field::Int(number) => Some(number.to_string()),
        Field::Long(number) => Some(number.to_string()),
        Field::UByte(number) => Some(number.to_string()),
        Field::UShort(number) => Some(number.to_string()),
        Field::UInt(number) => Some(number.to_string()),
        Field::ULong(number) => Some(number.to_string()),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).ok().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::{
        data_type::{ByteArray, ByteArrayType},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    use super::*;
    use crate::mutants;

    /// A file of one column of texts.
    fn write(path: &Path, compression: Compression, texts: &[&str]) {
        let schema = Arc::new(parse_message_type("message m { required binary text (utf8); }").unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    fn texts(path: &Path) -> Result<Vec<String>, Error> {
        read(path)?.map(|record| record?.text("text")).collect()
    }

    #[test]
    fn every_usual_compression_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let (gzip, brotli, zstd) = (Default::default(), Default::default(), Default::default());
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(gzip),
            Compression::BROTLI(brotli),
            Compression::ZSTD(zstd),
            Compression::LZ4,
            Compression::LZ4_RAW,
        ] {
            write(&path, compression, &["one", "two", "one"]);
            assert_eq!(texts(&path).unwrap(), ["one", "two", "one"], "{compression}");
        }
    }

    #[test]
    fn damaged_copies_end_in_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, Compression::SNAPPY, &["one", "two", "one", "three"]);
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for number in 0..mutants::count() {
            std::fs::write(&path, mutants::mutant(&whole, number)).unwrap();
            if let Err(error) = texts(&path) {
                assert!(error.to_string().contains("a.parquet"), "number {number}: {error}");
                refused += 1;
            }
        }
        assert!(refused > 50, "{refused}");
    }
}
