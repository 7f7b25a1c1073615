//! Rows of a parquet file, by the names of their columns.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};

use crate::Error;

/// A row.
pub struct Record {
    path: PathBuf,
    row: Row,
    number: usize,
}

/// The rows of a file, read as they are asked for.
pub(super) fn read(path: &Path) -> Result<impl Iterator<Item = Result<Record, Error>>, Error> {
    let fail = {
        let path = path.to_owned();
        move |error: parquet::errors::ParquetError| {
            Error::data(&path, format!("not a parquet file, or damaged: {error}; remove it, and it is fetched again"))
        }
    };
    let file = File::open(path).map_err(Error::io(path, "cannot be read"))?;
    let reader = SerializedFileReader::new(file).map_err(&fail)?;
    let path = path.to_owned();
    // One row group at a time: pictures of all of them would not fit.
    let groups = reader.num_row_groups();
    let rows = (0..groups).flat_map(move |group| {
        let read = || -> Result<Vec<Row>, parquet::errors::ParquetError> {
            reader.get_row_group(group)?.get_row_iter(None)?.collect()
        };
        match read() {
            Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }
    });
    Ok(rows.enumerate().map(move |(number, row)| {
        let row = row.map_err(&fail)?;
        Ok(Record { path: path.clone(), row, number })
    }))
}

impl Record {
    /// Whether there is a column of this name with a value.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some_and(|field| !matches!(field, Field::Null))
    }

    /// A column as text; numbers are spelt out, nothing is an empty text.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn text(&self, name: &str) -> Result<String, Error> {
        match self.field(name)? {
            Field::Null => Ok(String::new()),
            field => spelt(field).ok_or_else(|| self.error(&format!("column `{name}` holds no text"))),
        }
    }

    /// A column as a whole number.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn integer(&self, name: &str) -> Result<i64, Error> {
        self.text(name)?.parse().map_err(|_| self.error(&format!("column `{name}` holds no whole number")))
    }

    /// A list of texts; empty where there is none.
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

    /// The bytes of a picture, which is a group with a column `bytes`; `None` where there is none.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn picture(&self, name: &str) -> Result<Option<&[u8]>, Error> {
        match self.field(name)? {
            Field::Null => Ok(None),
            Field::Group(group) => match group.get_column_iter().find(|(name, _)| *name == "bytes") {
                Some((_, Field::Bytes(bytes))) => Ok(Some(bytes.data())),
                Some((_, Field::Null)) => Ok(None),
                _ => Err(self.error(&format!("column `{name}` has no bytes of a picture"))),
            },
            _ => Err(self.error(&format!("column `{name}` holds no picture"))),
        }
    }

    /// The pictures of a list, or the only one.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else.
    pub fn pictures(&self, name: &str) -> Result<Vec<&[u8]>, Error> {
        let Field::ListInternal(list) = self.field(name)? else {
            return Ok(self.picture(name)?.into_iter().collect());
        };
        let pictures = list.elements().iter().map(|field| match field {
            Field::Group(group) => bytes_of(group),
            _ => None,
        });
        let pictures: Option<Vec<&[u8]>> = pictures.collect();
        pictures.ok_or_else(|| self.error(&format!("column `{name}` has no bytes of a picture")))
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

/// The bytes in a picture's group.
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
