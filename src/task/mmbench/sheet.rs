//! MMBench's workbook: the file that its server takes, and that is read as answers.

use std::path::Path;

use rust_xlsxwriter::{Workbook, XlsxError};
use serde_json::{Map, Value, json};

use super::{Row, there, workbook};
use crate::{
    Error,
    files::read_bytes,
    task::{Answer, ids::ById},
    words::excerpt,
};

/// The field of an answer from a workbook that holds its label.
pub(super) const LABEL: &str = "answer";
const COLUMNS: [&str; 9] = ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"];

/// The workbook of a run. Cells that pandas reads as missing stay empty; an unknown id is skipped.
pub(super) fn write(rows: &[Row], answers: &ById) -> Result<Vec<u8>, XlsxError> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.set_name("Sheet1")?;
    for (column, name) in (0..).zip(COLUMNS) {
        sheet.write(0, column, name)?;
    }
    for (line, row) in (1..).zip(rows) {
        sheet.write(line, 0, row.index as f64)?;
        let prediction = answers.get(&row.index.into()).map(|answer| answer.text.as_str()).unwrap_or_default();
        let cells = [&row.question, &row.a, &row.b, &row.c, &row.d].map(String::as_str);
        let cells = cells.into_iter().map(|cell| if there(cell) { cell } else { "" });
        let cells = cells.chain([prediction, &row.answer, &row.split]);
        for (column, cell) in (1..).zip(cells) {
            if !cell.is_empty() {
                sheet.write(line, column, cell)?;
            }
        }
    }
    workbook.save_to_buffer()
}

/// The predictions in a workbook, each with its label if there is one.
pub(super) fn read(path: &Path) -> Result<Vec<Answer>, Error> {
    let fail = |reason: String| Error::data(path, reason);
    let mut rows = workbook::rows(&read_bytes(path, "the workbook cannot be read")?).map_err(fail)?.into_iter();
    let head = rows.next().unwrap_or_default();
    let column = |name: &str| head.iter().find(|(_, text)| *text == name).map(|(column, _)| *column);
    let (Some(index), Some(prediction)) = (column("index"), column("prediction")) else {
        let found: Vec<&str> = head.values().map(String::as_str).collect();
        let found = excerpt(&found.join(", "));
        return Err(fail(format!("expected the columns index and prediction in the first row, found `{found}`")));
    };
    let label = column("answer");
    let cell = |row: &workbook::Row, column: usize| row.get(&column).cloned().unwrap_or_default();
    let answers = rows.map(|row| {
        let id = cell(&row, index);
        let id: u64 = id.parse().map_err(|_| fail(format!("`{}` is no index", excerpt(&id))))?;
        let label = label.map(|column| cell(&row, column)).filter(|label| !label.is_empty());
        let more: Map<String, Value> = label.map(|label| (LABEL.to_owned(), json!(label))).into_iter().collect();
        Ok(Answer {
            question_id: id.into(),
            prompt: String::new(),
            text: cell(&row, prediction),
            answer_id: String::new(),
            model_id: String::new(),
            metadata: Map::new(),
            more,
        })
    });
    answers.collect()
}
