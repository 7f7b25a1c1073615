//! `secateur pull`: downloads now what other subcommands would download later.

use anyhow::bail;
use secateur_weights::find;

use super::{args::PullArgs, print};
use crate::{
    Error,
    dataset::fetch,
    model::{Layout, open},
    task::{TASKS, Task},
};

pub(super) fn run(args: &PullArgs) -> anyhow::Result<()> {
    let benchmark: Option<&&dyn Task> = TASKS.iter().find(|task| task.name() == args.id);
    let folder = match benchmark {
        Some(task) => {
            let Some(set) = task.hub() else {
                let name = &args.id;
                match task.default_data() {
                    "" => bail!("there is nothing to fetch: {name} is inside the binary"),
                    _ => {
                        bail!("{name} is on no hub in a form that is read; name its folder in `eval {name} --data DIR`")
                    }
                }
            };
            fetch(task.name(), set)?
        }
        None => {
            let folder = find(&args.id, None)?;
            // Opening finds the tower's checkpoint too, where there is one; a CLIP checkpoint is none to open.
            match open(&args.id, None) {
                Ok(opened) if opened.layout == Layout::Hf => say!(
                    "note: cdpruner and trim also read CLIP's text side: secateur pull openai/clip-vit-large-patch14-336"
                ),
                Ok(_) | Err(Error::Config { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            folder
        }
    };
    Ok(print(&folder.display().to_string())?)
}
