//! CLIP: the vision tower that LLaVA looks through, and the text side that some methods compare images with.

mod config;
mod encoder;
mod joint;
mod names;
mod text;
mod text_config;
mod text_side;
mod vision;

pub use config::ClipVisionConfig;
pub use joint::{ClipJoint, Joint};
pub(in crate::model) use names::{BUFFER, JOINT, POST_LAYERNORM, TOWER};
pub use text::ClipText;
pub use text_config::ClipTextConfig;
pub(in crate::model) use text_side::CLIP;
pub use text_side::TextSide;
pub use vision::{ClipVision, VisionOutput};
