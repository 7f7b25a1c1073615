//! The command line, through the program: stdout, stderr, exit codes and what it leaves on disk.

#[path = "../common/mod.rs"]
mod common;

mod analyze;
mod answers;
mod bad_input;
mod bench;
mod check;
mod cli;
mod compare;
mod datasets;
mod eval_mme;
mod eval_tasks;
mod gguf;
mod help;
mod hostile;
mod hub;
mod judge;
mod prune;
mod qwen;
mod report;
mod said;
mod scoring;
mod settings;
mod shards;
mod show;
mod survive;
mod sweep;
mod trace;
mod video;
mod video_sets;
mod workers;
