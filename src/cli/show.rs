//! `secateur show`: the patches that each method keeps of an image or a video, as images.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::bail;
use secateur_backends::{Job, VlmBackend};

use super::{
    args::ShowArgs,
    arrange::{arranged, in_padding, is_padded},
    check_there, make_folder,
    plan::{MethodPlan, ModelPlan},
    print, see,
};
use crate::{
    engine::{Decoding, answer, go_on, kept},
    files::write_file,
    image::{Rgb, Tiles, kept_patches, png},
    model::Model,
    plot::{Scale, captioned, columns, heat, reach},
    pruner::{Needs, Selector, relevance, selector},
    tensor::host,
    text::{Prompt, clip_question},
    video::Media,
};

/// The share of the image that colours hide.
const ALPHA: f32 = 0.5;
/// The largest number of letters of a word in a file's name.
const LONGEST: usize = 40;
/// The largest number of bytes of a word that is looked for in an image.
const LONGEST_WORD: usize = 300;
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
    let text = checkpoint.chat().own.render(&question, &[media.placeholders()])?;
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
    kept: Vec<Vec<usize>>,
    /// The numbers of visual tokens after and before pruning.
    counts: [usize; 2],
    /// The scores by which the method ranks patches, for each crop.
    scores: Option<Vec<Vec<f32>>>,
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
        let mut sheet = vec![captioned(&whole, title)];
        let mut files = Vec::new();
        for method in methods.iter().filter(|method| method.tokens.is_some()) {
            let shown = look::<B>(&model, &media, &prompt, method)?;
            let grid = model.grid();
            let dimmed = |square: Rgb, crop: usize| kept_patches(&square, grid, &shown.kept[crop]);
            let image = arranged(&model, &media, shown.tiles, dimmed);
            files.push(save(&out, method.method, &image)?);
            let [left, before] = shown.counts;
            let hidden = match in_padding(&model, &media, &shown.kept) {
                0 => String::new(),
                count => format!(", {count} in the padding"),
            };
            sheet.push(captioned(&image, &format!("{} · {left} of {before} tokens{hidden}", method.method)));
            if args.heat && shown.scores.is_none() {
                say!("note: --heat: {} has no score for each patch, and no heat map", method.method);
            }
            if let Some(scores) = shown.scores.as_ref().filter(|_| args.heat) {
                let scale = args.colormap.unwrap_or(Scale::Viridis);
                // All crops or frames share one scale.
                let ends = reach(scores.iter().flatten());
                let under = |square: Rgb, crop: usize| heat(&square, grid, &scores[crop], ends, scale, ALPHA);
                let image = arranged(&model, &media, shown.tiles, under);
                files.push(save(&out, &format!("{}-score", method.method), &image)?);
                sheet.push(captioned(&image, &format!("{} · score", method.method)));
            }
        }
        for (word, image) in relevances(&model, &media, &args)? {
            let name: String = word.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).take(LONGEST).collect();
            let is_new = |name: &String| files.iter().all(|file: &PathBuf| file.file_stem() != Some(OsStr::new(name)));
            let names = std::iter::once(String::new()).chain((2..).map(|i| format!("-{i}")));
            let name = names.map(|end| format!("relevance-{name}{end}")).find(is_new).unwrap_or_default();
            files.push(save(&out, &name, &image)?);
            sheet.push(captioned(&image, &word));
        }
        // Frames and tiles make wide images.
        let wide = sheet.iter().any(|image| image.width > 2 * image.height);
        files.push(save(&out, "sheet", &columns(&sheet, if wide { 1 } else { COLUMNS }))?);
        files.iter().try_for_each(|file| print(&file.display().to_string()))?;
        Ok(())
    }
}

/// Runs one method on the image or video.
fn look<B: VlmBackend>(model: &Model<B>, media: &Media, prompt: &Prompt, method: &MethodPlan) -> anyhow::Result<Shown> {
    let selector = selector::<B>(method.method, method.params)?;
    match &selector {
        Selector::Before(pruner) => {
            let look = model.encode_media(media, pruner.card().tiling, pruner.card().needs)?;
            let seen = model.prune(&look, &**pruner, method.tokens, prompt, 0)?;
            let score = pruner.score(&model.cues(&look, pruner.card().needs, prompt, 0)?)?;
            let scores = score.map(|score| host(score).chunks(seen.grid.tokens()).map(<[f32]>::to_vec).collect());
            let counts = [seen.order.len(), seen.unpruned];
            Ok(Shown { tiles: seen.tiles, kept: seen.keep.indices().to_vec(), counts, scores })
        }
        // Only the decoder can say.
        Selector::Inside(_) => {
            let first = Decoding::greedy(1);
            let media = std::slice::from_ref(media);
            let (seen, generated) = answer(model, media, prompt, &selector, method.tokens, first, go_on)?;
            let (kept, left) = kept(&seen, &generated);
            Ok(Shown { tiles: seen[0].tiles, kept, counts: [left, seen[0].unpruned], scores: None })
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
        let (image, text) = model.joint(seen.clone(), &format!("Is there a {word} in the image?"))?;
        let numbers = host(relevance(image, text));
        let map = heat(&square, grid, &numbers, reach(&numbers), scale, ALPHA);
        maps.push((word.to_owned(), map));
    }
    Ok(maps)
}

fn save(out: &Path, name: &str, image: &Rgb) -> anyhow::Result<PathBuf> {
    let path = out.join(format!("{name}.png"));
    write_file(&path, &png(image))?;
    Ok(path)
}
