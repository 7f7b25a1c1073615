//! `secateur show`: the patches that each method keeps of an image or a video, as images.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use secateur_backends::{Job, VlmBackend};
use serde_json::json;

use super::{
    args::ShowArgs,
    check_there, make_folder, ms, note_outside,
    plan::{MethodPlan, ModelPlan},
    print, print_json, see,
};
use crate::{
    drawing::{ALPHA, arranged, arranged_whole, drawn, in_padding, is_padded, with_bar},
    engine::{Decoding, answer, go_on, kept},
    files::write_file,
    image::{Grid, Rgb, Tiles, jpeg, kept_patches, png},
    model::Model,
    plot::{Scale, captioned, columns, heat, reach, stack},
    pruner::{Needs, Selector, relevance, selector},
    tensor::host,
    text::{Prompt, clip_question},
    video::Media,
    words::excerpt,
};

/// The largest number of letters of a word in a file's name.
const LONGEST: usize = 40;
/// The largest number of bytes of a word that is looked for in an image.
const LONGEST_WORD: usize = 300;
/// The longest answer in a caption, in tokens.
const ANSWER: usize = 12;
/// The quality of JPEG files.
const QUALITY: u8 = 92;
/// The number of images side by side in a sheet.
const COLUMNS: usize = 3;

pub(super) fn run(args: ShowArgs) -> anyhow::Result<()> {
    if args.model.method.tokens.is_none() && args.relevance.is_empty() {
        usage!("what is to be shown? --tokens N draws what methods keep, --relevance WORD,… where CLIP sees words");
    }
    if args.relevance.iter().any(|word| word.trim().is_empty()) {
        usage!("--relevance takes words with commas between them, as in bird,tree");
    }
    if args.question.is_none() && args.model.method.tokens.is_some() {
        say!("note: there is no question; methods that read it, and fastv, choose without one");
    }
    if let Some(word) = args.relevance.iter().find(|word| word.len() > LONGEST_WORD) {
        usage!("--relevance takes words or short phrases of up to {LONGEST_WORD} bytes; one has {}", word.len());
    }
    check_there(&args.media)?;
    let mut plan = ModelPlan::new(&args.model, MethodPlan::several(&args.model.method)?)?;
    if !args.relevance.is_empty() {
        plan.checkpoint.check_text_side()?;
        plan.options.joint = true;
    }
    let checkpoint = &plan.checkpoint;
    let media = see(&args.media, checkpoint.frames())?;
    let question = args.question.clone().unwrap_or_default();
    note_outside(args.model.model(), std::slice::from_ref(&media), &question);
    let text = checkpoint.chat().own.render(&question, &[media.placeholders(checkpoint.frames())])?;
    let out = args.out.clone().unwrap_or_else(|| usual_folder(&args));
    make_folder(&out)?;
    let target = plan.method().target;
    target.run(Show { args, plan, media, text, question, out })?
}

struct Show {
    args: ShowArgs,
    plan: ModelPlan,
    media: Media,
    text: String,
    question: String,
    out: PathBuf,
}

/// The folder of an image at a budget, so that another drawing does not take its place.
fn usual_folder(args: &ShowArgs) -> PathBuf {
    let name = args.media.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let what = args.model.method.tokens.map_or_else(|| "relevance".to_owned(), |tokens| tokens.to_string());
    Path::new("secateur-show").join(format!("{name}-{what}"))
}

/// The result of a method on an image's crops, or a video's frames.
struct Shown {
    tiles: Option<Tiles>,
    grid: Grid,
    kept: Vec<Vec<usize>>,
    /// The numbers of visual tokens after and before pruning.
    counts: [usize; 2],
    /// The scores by which the method ranks patches, for each crop.
    scores: Option<Vec<Vec<f32>>>,
    /// The answer to the question, and the time to its first token.
    answer: Option<(String, Duration)>,
}

impl Job for Show {
    type Output = anyhow::Result<()>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let Self { args, plan, media, text, question, out } = self;
        let methods = plan.methods.clone();
        let model: Model<B> = plan.load(&device)?;
        let prompt = Prompt::new(&text, &clip_question(&question), model.tokenizer())?;
        let whole = arranged(&model, &media, None, |square, _| square);
        let title =
            if is_padded(&model, &media) { "as the model sees it, without padding" } else { "as the model sees it" };
        let title = if question.is_empty() { title.to_owned() } else { format!("{title}: {question}") };
        let mut rows = vec![vec![captioned(&whole, &title)]];
        let (mut files, mut results) = (Vec::new(), Vec::new());
        // Methods that rank alike share one heat map.
        let mut ranked: Vec<(&str, Vec<Vec<f32>>)> = Vec::new();
        for method in methods.iter().filter(|method| method.tokens.is_some()) {
            let shown = look::<B>(&model, &media, &prompt, method, !question.is_empty())?;
            let grid = shown.grid;
            let hidden = in_padding(&model, &media, &shown.kept);
            let arrange = |draw: &dyn Fn(Rgb, usize) -> Rgb| match hidden {
                0 => arranged(&model, &media, shown.tiles, draw),
                // Kept patches of the padding must be seen.
                _ => arranged_whole(&model, &media, draw),
            };
            let image = arrange(&|square, crop| kept_patches(&square, grid, &shown.kept[crop]));
            files.push(save(&out, method.method, &image, args.jpeg)?);
            let mut row = vec![captioned(&image, &caption(method.method, &shown, hidden))];
            match shown.scores.as_ref().filter(|_| args.heat) {
                None if args.heat => {
                    say!("note: --heat: {} has no score for each patch, and no heat map", method.method);
                }
                Some(scores) => match ranked.iter().find(|(_, other)| other == scores) {
                    Some((other, _)) => {
                        say!("note: --heat: {} ranks as {other}, whose heat map stands for both", method.method)
                    }
                    None => {
                        let scale = args.colormap.unwrap_or(Scale::Viridis);
                        let (numbers, names) = args.heat_by.numbers(scores);
                        // All crops or frames share one scale.
                        let ends = reach(numbers.iter().flatten());
                        let image = arrange(&|square, crop| {
                            drawn(&square, grid, &numbers[crop], ends, scale, &shown.kept[crop])
                        });
                        let image = with_bar(&image, scale, names);
                        files.push(save(&out, &format!("{}-score", method.method), &image, args.jpeg)?);
                        row.push(captioned(&image, &format!("{} · score, kept patches outlined", method.method)));
                        ranked.push((method.method, scores.clone()));
                    }
                },
                None => {}
            }
            rows.push(row);
            let [left, before] = shown.counts;
            let (text, time) = shown.answer.unzip();
            results.push(json!({
                "method": method.method,
                "visual_tokens": left,
                "visual_tokens_before": before,
                "kept": shown.kept,
                "text": text,
                "ttft_ms": time.map(ms),
            }));
        }
        for (word, image) in relevances(&model, &media, &args)? {
            let name: String = word.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).take(LONGEST).collect();
            let is_new = |name: &String| files.iter().all(|file: &PathBuf| file.file_stem() != Some(OsStr::new(name)));
            let names = std::iter::once(String::new()).chain((2..).map(|i| format!("-{i}")));
            let name = names.map(|end| format!("relevance-{name}{end}")).find(is_new).unwrap_or_default();
            files.push(save(&out, &name, &image, args.jpeg)?);
            rows.push(vec![captioned(&image, &word)]);
        }
        files.push(save(&out, "sheet", &sheet(rows, args.heat), args.jpeg)?);
        files.iter().try_for_each(|file| print(&file.display().to_string()))?;
        if args.json {
            print_json(&json!({ "files": files, "methods": results }))?;
        }
        Ok(())
    }
}

/// The name of a method, what it keeps, and its answer with the time to the first token.
fn caption(method: &str, shown: &Shown, hidden: usize) -> String {
    let [left, before] = shown.counts;
    let hidden = if hidden == 0 { String::new() } else { format!(", {hidden} in the padding") };
    let answer =
        shown.answer.as_ref().map_or_else(String::new, |(text, time)| format!(" · {text} · {:.0} ms", ms(*time)));
    format!("{method} · {left} of {before} tokens{hidden}{answer}")
}

/// All drawings on one sheet: with heat maps a row for each method, else as many side by side as fit.
fn sheet(rows: Vec<Vec<Rgb>>, heat: bool) -> Rgb {
    // Frames and tiles make wide images.
    let wide = rows.iter().flatten().any(|image| image.width > 2 * image.height);
    if heat && !wide {
        return stack(&rows.iter().map(|row| columns(row, row.len())).collect::<Vec<_>>());
    }
    columns(&rows.concat(), if wide { 1 } else { COLUMNS })
}

/// Runs one method on the image or video, and asks the question if there is one.
fn look<B: VlmBackend>(
    model: &Model<B>,
    media: &Media,
    prompt: &Prompt,
    method: &MethodPlan,
    ask: bool,
) -> anyhow::Result<Shown> {
    let selector = selector::<B>(method.method, method.params)?;
    let mut said = None;
    if ask {
        let decoding = Decoding::greedy(ANSWER);
        let (seen, generated) =
            answer(model, std::slice::from_ref(media), prompt, &selector, method.tokens, decoding, go_on)?;
        let text = excerpt(&model.tokenizer().decode(&generated.ids));
        said = Some((text, seen[0].vision + seen[0].prune + generated.prefill));
    }
    match &selector {
        Selector::Before(pruner) => {
            let look = model.encode_media(media, pruner.card().tiling, pruner.card().needs)?;
            let seen = model.prune(&look, &**pruner, method.tokens, prompt, 0)?;
            let scores = model.scores(&look, &**pruner, prompt, 0)?;
            let counts = [seen.order.len(), seen.unpruned];
            let (tiles, grid) = (seen.tiles, seen.grid);
            Ok(Shown { tiles, grid, kept: seen.keep.indices().to_vec(), counts, scores, answer: said })
        }
        // Only the decoder can say.
        Selector::Inside(_) => {
            let first = Decoding::greedy(1);
            let media = std::slice::from_ref(media);
            let (seen, generated) = answer(model, media, prompt, &selector, method.tokens, first, go_on)?;
            let (kept, left) = kept(&seen, &generated);
            let (tiles, grid, counts) = (seen[0].tiles, seen[0].grid, [left, seen[0].unpruned]);
            Ok(Shown { tiles, grid, kept, counts, scores: None, answer: said })
        }
    }
}

/// The relevance map of each word: minus the cosine of a patch and the question about the word, as CDPruner's
/// `scripts/visualize_relevance.py` draws it, over the image squeezed into a square.
fn relevances<B: VlmBackend>(model: &Model<B>, media: &Media, args: &ShowArgs) -> anyhow::Result<Vec<(String, Rgb)>> {
    if args.relevance.is_empty() {
        return Ok(Vec::new());
    }
    let Media::Image(image) = media else {
        bail!("{}: --relevance draws over images", args.media.display());
    };
    let (square, views) = model.vlm().squeezed(image);
    let scale = args.colormap.unwrap_or(Scale::Jet);
    let mut maps = Vec::new();
    let grid = views.placement.grid;
    let seen = model.encode(views, Needs::default())?.features;
    let mut words: Vec<&str> = Vec::new();
    for word in args.relevance.iter().map(|word| word.trim()) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    for word in words {
        let prompt = Prompt { ids: Vec::new(), question: format!("Is there a {word} in the image?") };
        let (image, text) = model.joint(seen.clone(), &prompt)?;
        let numbers = host(relevance(image, text, model.vlm().relevance()));
        let map = heat(&square, grid, &numbers, reach(&numbers), scale, ALPHA);
        maps.push((word.to_owned(), map));
    }
    Ok(maps)
}

fn save(out: &Path, name: &str, image: &Rgb, as_jpeg: bool) -> anyhow::Result<PathBuf> {
    let (extension, bytes) = if as_jpeg { ("jpg", jpeg(image, QUALITY)) } else { ("png", png(image)) };
    let path = out.join(format!("{name}.{extension}"));
    write_file(&path, &bytes)?;
    Ok(path)
}
