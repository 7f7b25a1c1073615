//! Charts of a sweep: scores against the time to the first token, a chart for each benchmark.

use std::path::Path;

use super::row::Row;
use crate::{
    files::write_file,
    image::png,
    plot::{Point, Scatter, Series},
};

/// Writes a chart for each benchmark whose runs were all timed at one place; gives the paths of the images, and the benchmarks without a chart.
///
/// # Errors
/// When a chart cannot be written.
pub(super) fn write(rows: &[Row], out: &Path) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut paths, mut without) = (Vec::new(), Vec::new());
    let mut benchmarks: Vec<(&str, &str)> =
        rows.iter().map(|row| (row.benchmark.as_str(), row.model.as_str())).collect();
    benchmarks.sort_unstable();
    benchmarks.dedup();
    for (benchmark, model) in benchmarks {
        let own: Vec<&Row> = rows.iter().filter(|row| row.benchmark == benchmark && row.model == model).collect();
        let Some(chart) = chart(&own) else {
            without.push(benchmark.to_owned());
            continue;
        };
        let path = |extension: &str| out.join(format!("sweep-{model}-{benchmark}.{extension}"));
        write_file(&path("svg"), chart.svg().as_bytes())?;
        write_file(&path("png"), &png(&chart.image()))?;
        paths.push(path("png").display().to_string());
    }
    Ok((paths, without))
}

/// The chart of a benchmark; `None` where runs were timed at several places, or not at all.
fn chart(rows: &[&Row]) -> Option<Scatter> {
    let place = rows.first()?.place.as_ref()?;
    if rows.iter().any(|row| row.place.as_ref() != Some(place) || row.n != rows[0].n) {
        return None;
    }
    let mut series: Vec<Series> = Vec::new();
    for row in rows {
        let (Some(x), Some(y)) = (row.ttft_ms, row.score) else { continue };
        let point = Point { x, y, error: row.standard_error };
        match series.iter_mut().find(|series| series.method == row.method) {
            Some(series) => series.measured.push(point),
            None => series.push(Series {
                method: row.method.clone(),
                name: row.method.clone(),
                measured: vec![point],
                published: Vec::new(),
            }),
        }
    }
    let (benchmark, metric) = (&rows[0].benchmark, rows[0].metric.replace('_', " "));
    (!series.is_empty()).then(|| Scatter {
        title: format!("{benchmark}, {}", rows[0].model),
        x: "ms to the first token, median".to_owned(),
        y: if rows[0].accuracy.is_some() { format!("{metric}, %") } else { metric },
        doublings: false,
        front: true,
        baseline: None,
        series,
    })
}
