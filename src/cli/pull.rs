//! `secateur pull`: downloads now what other subcommands would download later.

use anyhow::bail;
use secateur_weights::{find, find_gguf};
use serde_json::json;

use super::{args::PullArgs, print, print_json};
use crate::{
    model::{Beside, is_gguf, is_tower, open},
    task::{TASKS, Task, fetch},
};

pub(super) fn run(args: &PullArgs) -> anyhow::Result<()> {
    let benchmark: Option<&&dyn Task> = TASKS.iter().find(|task| task.name() == args.id);
    let folder = match benchmark {
        Some(task) => {
            let Some(set) = task.card().hub else {
                let name = &args.id;
                match task.card().data {
                    "" => bail!("there is nothing to fetch: {name} is inside the binary"),
                    _ => {
                        bail!("{name} is on no hub in a form that is read; name its folder in `eval {name} --data DIR`")
                    }
                }
            };
            fetch(*task, set)?
        }
        None if is_gguf(&args.id) => find_gguf(&args.id)?,
        None => {
            // A CLIP checkpoint is a part of models, and cannot be opened as a model.
            if is_tower(&args.id)? {
                find(&args.id, None)?
            } else {
                // Opening a model fetches the tower's checkpoint too, if it has one.
                let checkpoint = open(&args.id, Beside::default())?;
                checkpoint.notes.iter().for_each(|note| say!("note: {note}"));
                if let Some(id) = checkpoint.text_side_id() {
                    say!("note: cdpruner and trim also read CLIP's text side: secateur pull {id}");
                }
                checkpoint.folder
            }
        }
    };
    print(&folder.display().to_string())?;
    if args.json {
        print_json(&json!({ "folder": folder }))?;
    }
    Ok(())
}
