//! `secateur quantize`: a checkpoint as GGUF files in blocks of a few bits.

use anyhow::bail;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;

use super::{args::QuantizeArgs, print, print_json};
use crate::model::open;

pub(super) fn run(args: QuantizeArgs) -> anyhow::Result<()> {
    if args.out.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("gguf")) {
        usage!("{}: the file to write is named FILE.gguf", args.out.display());
    }
    if args.out.exists() && !args.force {
        bail!("{}: it is there already; --force writes it anew", args.out.display());
    }
    let checkpoint = open(&args.model, args.beside())?;
    checkpoint.notes.iter().for_each(|note| say!("note: {note}"));
    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template("{bar:32} {pos}/{len} tensors · {eta} left")?);
    let written = checkpoint.write_gguf(&args.out, args.blocks, |tensor, all, _| {
        bar.set_length(all as u64);
        bar.set_position(tensor as u64);
    });
    bar.finish_and_clear();
    let written = written?;
    let mut files = Vec::new();
    for path in &written {
        let bytes = std::fs::metadata(path).map(|file| file.len()).unwrap_or_default();
        print(&format!("{} · {}", path.display(), HumanBytes(bytes)))?;
        files.push(json!({ "file": path, "bytes": bytes }));
    }
    if args.json {
        print_json(&json!({ "files": files, "blocks": args.blocks.name() }))?;
    }
    Ok(())
}
