//! The files of an analysis: data, tables and charts.

use std::path::Path;

use crate::{
    analysis::{Dispersion, Histogram, KINDS, Shift, Spread},
    cli::{cues::write_tensors, make_folder},
    files::write_file,
    image::{Grid, Rgb, png},
    plot::{Labels, bars, columns, curves, map, shares},
};

/// The number of charts side by side in a sheet.
const COLUMNS: usize = 8;

/// The attention by place, in two sentences.
fn summary_of_shift(cls: &[f32], layers: &[[Vec<f32>; 4]]) -> String {
    let thirds = |values: &[f32]| {
        let third = values.len() / 3;
        let sum = |part: &[f32]| part.iter().map(|&value| f64::from(value)).sum::<f64>();
        sum(&values[values.len() - third..]) / sum(&values[..third.max(1)]).max(f64::MIN_POSITIVE)
    };
    let last = layers.iter().map(|layer| thirds(&layer[3])).collect::<Vec<_>>();
    let mean = last.iter().sum::<f64>() / last.len().max(1) as f64;
    let (first, end) = (share(layers.first()), share(layers.last()));
    format!(
        "The last token pays {first:.1} % of its attention to the image in the first layer and {end:.1} % in layer {}.\n\
         Over all layers it pays {mean:.2} times as much to the last third of the visual tokens as to the first; [CLS] pays {:.2} times as much.",
        layers.len(),
        thirds(cls),
    )
}

/// The share of the last token's attention that goes to visual tokens, in percent.
fn share(layer: Option<&[Vec<f32>; 4]>) -> f64 {
    layer.map_or(0.0, |layer| 100.0 * layer[3].iter().map(|&value| f64::from(value)).sum::<f64>())
}

/// The spread of attention, in two sentences.
fn summary_of_dispersion(spreads: &[Spread; 2]) -> String {
    let tenth = |spread: &Spread| {
        let at = (spread.cumulative.len() / 10).min(spread.cumulative.len().saturating_sub(1));
        100.0 * spread.cumulative.get(at).copied().unwrap_or(0.0)
    };
    format!(
        "A tenth of the visual tokens gets {:.1} % of [CLS]'s attention to all of them.\n\
         A tenth gets {:.1} % of the last token's, in the second layer of the decoder.",
        tenth(&spreads[0]),
        tenth(&spreads[1]),
    )
}

/// Writes data, a chart and a map of every kind and layer as in the official folders, and a sheet of each; gives the sentences about them.
pub(super) fn write_shift(shift: &Shift, grid: Grid, out: &Path) -> anyhow::Result<String> {
    let (cls, layers) = (shift.cls(), shift.layers());
    let side = grid.columns;
    let by_kind: Vec<Vec<f32>> =
        (0..KINDS.len()).map(|kind| layers.iter().flat_map(|layer| layer[kind].clone()).collect()).collect();
    let mut tensors = vec![("cls", vec![cls.len()], &cls[..])];
    let of_layers = vec![layers.len(), cls.len()];
    tensors.extend(KINDS.iter().zip(&by_kind).map(|(kind, values)| (*kind, of_layers.clone(), &values[..])));
    write_tensors(&out.join("attention-shift.safetensors"), &tensors)?;

    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["layer", "token", "row", "column", "full", "image", "text", "last"])?;
    for (i, layer) in layers.iter().enumerate() {
        for token in 0..cls.len() {
            let place = [i + 1, token + 1, token / side, token % side].map(|number| number.to_string());
            table.write_record(place.into_iter().chain(layer.iter().map(|kind| kind[token].to_string())))?;
        }
    }
    write_file(&out.join("attention-shift.csv"), &table.into_inner()?)?;
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["token", "row", "column", "cls"])?;
    for (token, paid) in cls.iter().enumerate() {
        let place = [token + 1, token / side, token % side].map(|number| number.to_string());
        table.write_record(place.into_iter().chain([paid.to_string()]))?;
    }
    write_file(&out.join("attention-shift-cls.csv"), &table.into_inner()?)?;

    let chart = |title: &str, values: &[f32]| bars(Labels { title, x: "token", y: "attention" }, values, side);
    save(&out.join("cls_attn/dist.png"), &chart("[CLS] attention", &cls))?;
    save(&out.join("cls_attn/map.png"), &map("[CLS] attention", &cls, grid))?;
    for (kind, name) in KINDS.iter().enumerate() {
        let folder = out.join(format!("{name}_attn"));
        let (mut charts, mut maps) = (Vec::new(), Vec::new());
        for (i, layer) in layers.iter().enumerate() {
            let title = format!("{name} attention, layer {}", i + 1);
            charts.push(chart(&title, &layer[kind]));
            maps.push(map(&title, &layer[kind], grid));
            save(&folder.join(format!("dist/layer_{}.png", i + 1)), &charts[i])?;
            save(&folder.join(format!("map/layer_{}.png", i + 1)), &maps[i])?;
        }
        save(&folder.join("dist.png"), &columns(&charts, COLUMNS.min(layers.len())))?;
        save(&folder.join("map.png"), &columns(&maps, COLUMNS.min(layers.len())))?;
    }
    let sentences = summary_of_shift(&cls, &layers);
    let of_cls = ["cls_attn/dist.png", "cls_attn/map.png"].map(str::to_owned).into_iter();
    let of_kinds = KINDS.iter().flat_map(|name| ["dist", "map"].map(|what| format!("{name}_attn/{what}.png")));
    write_index(out, "Where attention goes", &sentences, &of_cls.chain(of_kinds).collect::<Vec<_>>())?;
    Ok(sentences)
}

/// Writes data, tables and charts of both spreads; gives the sentences about them.
pub(super) fn write_dispersion(dispersion: &Dispersion, out: &Path) -> anyhow::Result<String> {
    let spreads = dispersion.spreads();
    let names = ["cls", "last"];
    let mut tensors = Vec::new();
    let keys: Vec<[String; 2]> =
        names.iter().map(|name| ["cumulative", "proportion"].map(|what| format!("{name}_{what}"))).collect();
    let proportions = spreads.each_ref().map(|Spread { histogram, .. }| proportions(histogram));
    for ((keys, spread), proportions) in keys.iter().zip(&spreads).zip(&proportions) {
        tensors.push((keys[0].as_str(), vec![spread.cumulative.len()], &spread.cumulative[..]));
        tensors.push((keys[1].as_str(), vec![proportions.len()], &proportions[..]));
    }
    write_tensors(&out.join("attention-dispersion.safetensors"), &tensors)?;

    let mut lines = Vec::new();
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["attention", "token_share", "attention_share"])?;
    for (name, spread) in names.iter().zip(&spreads) {
        let count = spread.cumulative.len() as f32;
        // The best token alone stands at 0, as in the official script.
        let points = spread.cumulative.iter().enumerate().map(|(i, sum)| (i as f32 / count, *sum));
        for (tokens, sum) in points.clone() {
            table.write_record([(*name).to_owned(), tokens.to_string(), sum.to_string()])?;
        }
        let label = if *name == "cls" { "[CLS] attention" } else { "last token's attention" };
        lines.push((label, points.map(|(tokens, sum)| (100.0 * tokens, 100.0 * sum)).collect()));
    }
    write_file(&out.join("attention-dispersion.csv"), &table.into_inner()?)?;
    let labels = Labels { title: "Cumulative attention", x: "best tokens, %", y: "attention, %" };
    save(&out.join("cdf.png"), &curves(labels, &lines, (100.0, 100.0)))?;

    for ((name, Spread { histogram, .. }), proportions) in names.iter().zip(&spreads).zip(&proportions) {
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(["left", "right", "count", "proportion", "official_height"])?;
        let mut bins = Vec::new();
        for ((ends, count), proportion) in histogram.edges.windows(2).zip(&histogram.counts).zip(proportions) {
            // The official bars show a natural logarithm, under an axis with powers of ten.
            let official = 5.0 + (f64::from(*proportion) + 1e-8).ln();
            let numbers = [ends[0], ends[1], *count as f64, f64::from(*proportion), official];
            table.write_record(numbers.map(|number| number.to_string()))?;
            bins.push((ends[0] as f32, ends[1] as f32, *proportion));
        }
        write_file(&out.join(format!("{name}_attn_dist.csv")), &table.into_inner()?)?;
        let title = if *name == "cls" { "[CLS] attention" } else { "Last token's attention" };
        let labels = Labels { title, x: "attention, the largest being 1", y: "share of all values" };
        save(&out.join(format!("{name}_attn_dist.png")), &shares(labels, &bins))?;
    }
    let sentences = summary_of_dispersion(&spreads);
    let images = ["cdf.png", "cls_attn_dist.png", "last_attn_dist.png"].map(str::to_owned);
    write_index(out, "On how many tokens attention is spread", &sentences, &images)?;
    Ok(sentences)
}

fn proportions(histogram: &Histogram) -> Vec<f32> {
    let total: u64 = histogram.counts.iter().sum();
    histogram.counts.iter().map(|&count| count as f32 / total.max(1) as f32).collect()
}

/// Writes a page with the sentences of an analysis and its images, so that a reader finds them in one place.
fn write_index(out: &Path, title: &str, sentences: &str, images: &[String]) -> anyhow::Result<()> {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<title>{title}</title>\n<style>:root {{ color-scheme: light dark; }} body {{ font: 16px/1.45 system-ui, sans-serif; \
         margin: 0 auto; max-width: 1200px; padding: 12px; }} img {{ background: #fff; max-width: 100%; }}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    for sentence in sentences.lines() {
        html += &format!("<p>{sentence}</p>\n");
    }
    for image in images {
        html += &format!(
            "<h2>{image}</h2>\n<p><a href=\"{image}\"><img src=\"{image}\" alt=\"{image}\" loading=\"lazy\"></a></p>\n"
        );
    }
    write_file(&out.join("index.html"), (html + "</body>\n</html>\n").as_bytes())?;
    Ok(())
}

fn save(path: &Path, image: &Rgb) -> anyhow::Result<()> {
    make_folder(path.parent().unwrap_or(Path::new("")))?;
    Ok(write_file(path, &png(image))?)
}
