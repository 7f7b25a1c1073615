//! CLIP: the vision tower that LLaVA looks through, and the text side that some methods compare pictures with.

mod encoder;
mod joint;
mod text;
mod vision;

pub use joint::ClipJoint;
pub use text::ClipText;
pub use vision::{ClipVision, Sight};
