//! Media, and the cache of the vision tower's output for them, by content and within a budget of bytes.

use std::sync::{Arc, OnceLock};

use secateur_backends::VlmBackend;

use crate::{
    Error,
    model::{EncodedMedia, Model},
    pruner::{Needs, Tiling},
    video,
};

/// An image or video that requests share.
pub struct SharedMedia {
    media: video::Media,
    /// The checksum of the image's or video's pixels, once it was asked for.
    key: OnceLock<[u8; 32]>,
}

impl SharedMedia {
    /// An image or video that several requests can share.
    pub fn new(media: video::Media) -> Arc<Self> {
        Arc::new(Self { media, key: OnceLock::new() })
    }

    /// The image or video.
    pub fn media(&self) -> &video::Media {
        &self.media
    }

    fn key(&self) -> [u8; 32] {
        *self.key.get_or_init(|| self.media.sha256())
    }
}

/// The tower's output for an image or video, as engines share it.
pub type Encoded<B> = Arc<EncodedMedia<B>>;

/// An image or video of a request.
pub enum Media<B: VlmBackend> {
    /// The pixels, to be encoded.
    Shared(Arc<SharedMedia>),
    /// The vision tower's output, with all that the request's method needs.
    Encoded(Encoded<B>),
}

impl<B: VlmBackend> Clone for Media<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Shared(media) => Self::Shared(media.clone()),
            Self::Encoded(media) => Self::Encoded(media.clone()),
        }
    }
}

impl<B: VlmBackend> From<video::Media> for Media<B> {
    fn from(media: video::Media) -> Self {
        Self::Shared(SharedMedia::new(media))
    }
}

impl<B: VlmBackend> Media<B> {
    /// A bound on the tokens that the decoder reads of the image or video.
    pub(super) fn most_tokens(&self, model: &Model<B>) -> usize {
        match self {
            // Each item may have newline tokens and a class token, too.
            Self::Encoded(media) => 2 * media.tokens(),
            Self::Shared(media) => model.most_tokens(media.media()),
        }
    }
}

/// The key of a tower output: the checksum of the pixels, the tiling, and the needs of the method.
type Key = ([u8; 32], Tiling, Needs);

/// A cache of tower outputs, in the order in which they were last used.
pub(super) struct EncoderCache<B: VlmBackend> {
    entries: Vec<(Key, Encoded<B>)>,
    budget: usize,
    encoded: usize,
    hits: usize,
}

impl<B: VlmBackend> EncoderCache<B> {
    pub(super) fn new(budget: usize) -> Self {
        Self { entries: Vec::new(), budget, encoded: 0, hits: 0 }
    }

    /// The number of images and videos that the vision tower has encoded.
    pub(super) fn encoded(&self) -> usize {
        self.encoded
    }

    /// The number of those whose encoding was in the cache.
    pub(super) fn hits(&self) -> usize {
        self.hits
    }

    /// The tower's output for `media`, computed where it is not in the cache.
    pub(super) fn encode(
        &mut self,
        model: &Model<B>,
        media: &Media<B>,
        tiling: Tiling,
        needs: Needs,
    ) -> Result<Encoded<B>, Error> {
        let shared = match media {
            Media::Encoded(encoded) => return Ok(encoded.clone()),
            Media::Shared(shared) => shared,
        };
        if self.budget == 0 {
            self.encoded += 1;
            return Ok(Arc::new(model.encode_media(shared.media(), tiling, needs)?));
        }
        let key = (shared.key(), tiling, needs);
        if let Some(at) = self.entries.iter().position(|(known, _)| *known == key) {
            let entry = self.entries.remove(at);
            self.hits += 1;
            let encoded = entry.1.clone();
            self.entries.push(entry);
            return Ok(encoded);
        }
        self.encoded += 1;
        let encoded = Arc::new(model.encode_media(shared.media(), tiling, needs)?);
        self.entries.push((key, encoded.clone()));
        // The newest stays, however large it is: the next request may be about it.
        while self.entries.len() > 1 && self.bytes() > self.budget {
            self.entries.remove(0);
        }
        Ok(encoded)
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(|(_, encoded)| encoded.bytes()).sum()
    }
}
