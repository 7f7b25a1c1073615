//! MMBench's workbook: what its server takes, and what it looks like when it comes back.

use std::path::Path;

use calamine::{Data, Reader, Xlsx, open_workbook};
use rust_xlsxwriter::{Workbook, XlsxError};
use serde_json::{Map, Value, json};

use super::{Row, there};
use crate::{
    Error,
    task::{Answer, ids::ById},
};

/// Where an answer from a workbook carries its label.
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
    let mut workbook: Xlsx<_> = open_workbook(path).map_err(|e: calamine::XlsxError| fail(e.to_string()))?;
    let sheet = workbook.worksheet_range_at(0).ok_or_else(|| fail("the workbook has no sheet".to_owned()))?;
    let sheet = sheet.map_err(|e| fail(e.to_string()))?;
    let mut rows = sheet.rows();
    let head: Vec<String> = rows.next().unwrap_or_default().iter().map(ToString::to_string).collect();
    let column = |name: &str| head.iter().position(|column| column == name);
    let (Some(index), Some(prediction)) = (column("index"), column("prediction")) else {
        return Err(fail(format!("expected the columns index and prediction, found {}", head.join(", "))));
    };
    let label = column("answer");
    let cell = |row: &[Data], column: usize| row.get(column).map(ToString::to_string).unwrap_or_default();
    let answers = rows.map(|row| {
        let id: u64 = cell(row, index).parse().map_err(|_| fail(format!("`{}` is no index", cell(row, index))))?;
        let label = label.map(|column| cell(row, column)).filter(|label| !label.is_empty());
        let more: Map<String, Value> = label.map(|label| (LABEL.to_owned(), json!(label))).into_iter().collect();
        Ok(Answer {
            question_id: id.into(),
            prompt: String::new(),
            text: cell(row, prediction),
            answer_id: String::new(),
            model_id: String::new(),
            metadata: Map::new(),
            more,
        })
    });
    answers.collect()
}
