//! Hugging Face checkpoints into Burn modules.
//!
//! [`find`] turns an id or a path into a folder, and downloads missing files ([`find_data`] does so for the files of a
//! data set). [`Checkpoint`] lists the tensors of a folder's shards without reading them. [`Rename`] maps file names to
//! module paths. [`load`] fills a module strictly: no tensor may be missing, left over or mis-shaped, and the weights
//! are mapped into memory rather than copied wherever the backend allows.
//!
//! [`Gguf`] reads the settings of a GGUF file and lists its tensors, whose blocks stay as they are in the file.
//!
//! This crate knows no model.

mod checkpoint;
mod error;
mod folder;
mod gguf;
mod hub;
mod load;
mod mapped;
mod pickle;
mod rename;
mod safetensors;
mod stored;
mod text;
mod torch;

pub use checkpoint::{Checkpoint, WeightFiles};
pub use error::WeightsError;
pub use gguf::{Gguf, GgufTensor, GgufType, Setting, Value, write_gguf};
pub use hub::{cache_root, cached_commit, find, find_config, find_data, find_gguf, find_tower, stay_offline};
pub use load::{Dtypes, TakeBlocks, load};
pub use rename::{Ignored, Rename};
pub use stored::{NotFinite, StoredTensor};
pub use text::{TextError, decode_text, impostor, json_words, parse_json, printable, read_text, system_words};
