//! The flags of `secateur serve`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::ModelArgs;

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct ServeArgs {
    /// The address to listen on; 0.0.0.0 is all of this machine's
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(in crate::cli) host: String,
    /// The port to listen on; 0 takes any that is free
    #[arg(long, default_value_t = 8000, value_name = "N")]
    pub(in crate::cli) port: u16,
    /// The name of the model in requests and answers, beside the value of --model
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
    /// A file with keys, one a line, of which a request must have one; another may be in the variable SECATEUR_API_KEY
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) api_key_file: Option<PathBuf>,
    /// Requests that are answered side by side
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(in crate::cli) batch_size: usize,
    /// Requests that may wait; more get status 429
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(in crate::cli) queue: usize,
    /// Tokens of prompts that a step reads: with fewer, others' answers stop for less time
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(in crate::cli) step_rows: usize,
    /// Keys and values of all requests that are answered, in GiB
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(in crate::cli) kv_gib: usize,
    /// The longest answer, where the request has no limit of its own
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub(in crate::cli) max_new_tokens: usize,
    /// The temperature, where the request has none; 0 takes the best token
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub(in crate::cli) temperature: f32,
    /// The share of the likeliest tokens to draw from, where the request has none
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub(in crate::cli) top_p: f32,
    /// Lets requests name images on the web, at public addresses
    #[arg(long)]
    pub(in crate::cli) allow_remote_images: bool,
    /// Lets requests name images below this folder, as file: addresses
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) media_path: Option<PathBuf>,
    /// Lets web pages of another origin ask, as https://chat.example.org; `*` is all
    #[arg(long, value_name = "ORIGIN")]
    pub(in crate::cli) cors: Option<String>,
    /// Seconds for the requests in flight when the server is told to stop
    #[arg(long, default_value_t = 30, value_name = "S")]
    pub(in crate::cli) grace: u64,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
}
