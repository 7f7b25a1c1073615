//! `secateur analyze`: the attention to visual tokens, as data and as charts.

use std::path::Path;

use anyhow::bail;
use burn::tensor::DType;
use safetensors::{Dtype, serialize, tensor::TensorView};
use secateur_backends::{Job, VlmBackend};

use super::{
    args::{Analysis, AnalyzeArgs},
    make_folder, note_turned, print,
    progress::progress,
};
use crate::{
    Error,
    analysis::{Attention, Dispersion, Histogram, Instruction, KINDS, Shift, Spread, read},
    files::write_file,
    image::{Grid, Rgb, decode, png},
    model::{Checkpoint, LoadOptions, Model, open},
    plot::{Labels, bars, columns, curves, map, shares},
    text::{Prompt, clip_question},
};

/// The number of charts side by side in a sheet.
const COLUMNS: usize = 8;

pub(super) fn run(args: AnalyzeArgs) -> anyhow::Result<()> {
    let images = args.images.clone().or_else(|| args.data.parent().map(Path::to_owned)).unwrap_or_default();
    if args.limit == Some(0) {
        bail!("--limit 0 leaves no question; leave it out for all of them");
    }
    let (questions, without) = read(&args.data, &images, args.limit.unwrap_or(usize::MAX))?;
    if without > 0 {
        say!("note: {without} entries have no image or no question and are skipped");
    }
    let checkpoint = open(&args.model, None)?;
    if args.what == Analysis::AttentionDispersion && checkpoint.decoder().num_hidden_layers < 2 {
        bail!("attention-dispersion reads the second layer of the language model, which has one");
    }
    let target = args.target.choose()?;
    make_folder(&args.out)?;
    target.run(Analyze { args, checkpoint, questions })?
}

struct Analyze {
    args: AnalyzeArgs,
    checkpoint: Checkpoint,
    questions: Vec<Instruction>,
}

impl Job for Analyze {
    type Output = anyhow::Result<()>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let Self { args, checkpoint, questions } = self;
        let layers = match args.what {
            Analysis::AttentionShift => checkpoint.decoder().num_hidden_layers,
            Analysis::AttentionDispersion => 2,
        };
        let options = LoadOptions { dtype: args.dtype.map(DType::from), ..LoadOptions::default() };
        checkpoint.notes.iter().for_each(|note| say!("note: {note}"));
        let model: Model<B> = checkpoint.load(options, &device)?;
        model.notes().iter().for_each(|note| say!("note: {note}"));
        let (mut shift, mut dispersion) = (Shift::default(), Dispersion::default());
        let bar = progress(questions.len(), 0);
        let mut measured = 0;
        for instruction in &questions {
            bar.suspend(|| note_turned(&instruction.image));
            // One bad image among thousands should not cost the results of the others.
            match measure(&model, instruction, layers) {
                Ok(attention) => {
                    measured += 1;
                    match args.what {
                        Analysis::AttentionShift => shift.add(&attention),
                        Analysis::AttentionDispersion => dispersion.add(&attention),
                    }
                }
                // An error of the model is the same for every question.
                Err(error @ Error::NotFinite { .. }) => return Err(error.into()),
                Err(error) if questions.len() == 1 => return Err(error.into()),
                Err(error) => {
                    let (image, error) = (instruction.image.display(), anyhow::Error::from(error));
                    bar.suspend(|| say!("note: the question about {image} is skipped: {error:#}"));
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if measured == 0 {
            bail!("{}: none of its {} questions could be measured", args.data.display(), questions.len());
        }
        if measured < questions.len() {
            say!("note: the figures are over {measured} of {} questions", questions.len());
        }
        match args.what {
            Analysis::AttentionShift => write_shift(&shift, model.grid(), &args.out),
            Analysis::AttentionDispersion => write_dispersion(&dispersion, &args.out),
        }
    }
}

fn measure<B: VlmBackend>(model: &Model<B>, instruction: &Instruction, layers: usize) -> Result<Attention, Error> {
    let Instruction { image, question } = instruction;
    let image = decode(image)?;
    let text = model.benchmark_chat().render(question, &[1])?;
    let prompt = Prompt::new(&text, &clip_question(question), model.tokenizer())?;
    Attention::measure(model, &image, &prompt, layers)
}

/// Writes data, a chart and a map of every kind and layer as in the official folders, and a sheet of each.
fn write_shift(shift: &Shift, grid: Grid, out: &Path) -> anyhow::Result<()> {
    let (cls, layers) = (shift.cls(), shift.layers());
    let side = grid.columns;
    let by_kind: Vec<Vec<f32>> =
        (0..KINDS.len()).map(|kind| layers.iter().flat_map(|layer| layer[kind].clone()).collect()).collect();
    let mut tensors = vec![("cls", vec![cls.len()], &cls)];
    tensors.extend(KINDS.iter().zip(&by_kind).map(|(kind, values)| (*kind, vec![layers.len(), cls.len()], values)));
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
            save(&folder.join(format!("dist/layer_{i}.png")), &charts[i])?;
            save(&folder.join(format!("map/layer_{i}.png")), &maps[i])?;
        }
        save(&folder.join("dist.png"), &columns(&charts, COLUMNS.min(layers.len())))?;
        save(&folder.join("map.png"), &columns(&maps, COLUMNS.min(layers.len())))?;
    }
    Ok(print(&out.display().to_string())?)
}

fn write_dispersion(dispersion: &Dispersion, out: &Path) -> anyhow::Result<()> {
    let spreads = dispersion.spreads();
    let names = ["cls", "last"];
    let mut tensors = Vec::new();
    let keys: Vec<[String; 2]> =
        names.iter().map(|name| ["cumulative", "proportion"].map(|what| format!("{name}_{what}"))).collect();
    let proportions = spreads.each_ref().map(|Spread { histogram, .. }| proportions(histogram));
    for ((keys, spread), proportions) in keys.iter().zip(&spreads).zip(&proportions) {
        tensors.push((keys[0].as_str(), vec![spread.cumulative.len()], &spread.cumulative));
        tensors.push((keys[1].as_str(), vec![proportions.len()], proportions));
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
    Ok(print(&out.display().to_string())?)
}

fn proportions(histogram: &Histogram) -> Vec<f32> {
    let total: u64 = histogram.counts.iter().sum();
    histogram.counts.iter().map(|&count| count as f32 / total.max(1) as f32).collect()
}

fn write_tensors(path: &Path, tensors: &[(&str, Vec<usize>, &Vec<f32>)]) -> anyhow::Result<()> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let mut views = Vec::new();
    for ((name, shape, _), bytes) in tensors.iter().zip(&bytes) {
        views.push((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    Ok(write_file(path, &serialize(views, None)?)?)
}

fn save(path: &Path, image: &Rgb) -> anyhow::Result<()> {
    make_folder(path.parent().unwrap_or(Path::new("")))?;
    Ok(write_file(path, &png(image))?)
}
