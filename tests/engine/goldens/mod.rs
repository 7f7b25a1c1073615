//! Stage by stage against the official code; each file says with which tolerances.

mod cdpruner;
mod clip_text;
mod families;
mod fastv;
mod gguf;
mod jpeg;
mod methods;
mod model;
mod next;
mod preprocess;
mod qwen;
mod rope;
mod tokenizer;
mod video;
mod wide;
