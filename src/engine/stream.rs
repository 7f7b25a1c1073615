//! Text that grows with its tokens.

use secateur_backends::VlmBackend;

use crate::model::Model;

/// Prints an answer as it grows: what is decodable of `ids` beyond what was already given out.
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

    /// What is left at the end of `text`.
    pub fn finish(&self, text: &str) -> String {
        text.get(self.shown..).unwrap_or_default().to_owned()
    }
}
