//! Streaming: text that grows with its tokens.

use secateur_backends::VlmBackend;

use crate::model::Model;

/// The text of an answer as it grows, in parts: each new part is the text beyond that given out before.
#[derive(Debug, Default)]
pub struct Stream {
    shown: usize,
}

impl Stream {
    /// The new part of the text of `ids`; characters whose bytes are still incomplete wait.
    pub fn push<B: VlmBackend>(&mut self, model: &Model<B>, ids: &[u32]) -> String {
        let text = model.tokenizer().decode(ids);
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let new = whole.get(self.shown..).unwrap_or_default().to_owned();
        self.shown = self.shown.max(whole.len());
        new
    }

    /// The part of the whole `text` that was not given out yet.
    pub fn finish(&self, text: &str) -> String {
        text.get(self.shown..).unwrap_or_default().to_owned()
    }
}
