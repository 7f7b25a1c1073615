//! Texts at which an answer ends, found in text that grows.

/// Looks for stop texts in an answer, and holds back what may be the beginning of one.
#[derive(Debug, Default)]
pub(super) struct Stops {
    texts: Vec<String>,
    held: String,
}

impl Stops {
    pub(super) fn new(texts: Vec<String>) -> Self {
        Self { texts, held: String::new() }
    }

    /// The text that can be given out after `new` has come, and whether a stop text was found: the answer then ends before it.
    pub(super) fn push(&mut self, new: &str) -> (String, bool) {
        self.held += new;
        // Of several, the one that begins first; it is the answer's end whatever comes after it.
        if let Some(at) = self.texts.iter().filter_map(|text| self.held.find(text.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |at: &usize| {
            let rest = &self.held[*at..];
            self.texts.iter().any(|text| text.starts_with(rest))
        };
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest);
        let starts = self.held.char_indices().map(|(at, _)| at).filter(|&at| at >= from);
        let keep = starts.into_iter().find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text that was held back, at the answer's end.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stop_text_is_found_across_parts() {
        let mut stops = Stops::new(vec!["END".to_owned(), "\n\n".to_owned()]);
        assert_eq!(stops.push("One E"), ("One ".to_owned(), false));
        assert_eq!(stops.push("N"), (String::new(), false));
        assert_eq!(stops.push("t\n"), ("ENt".to_owned(), false));
        assert_eq!(stops.push("\nEND"), (String::new(), true));
        let mut stops = Stops::new(vec!["END".to_owned()]);
        assert_eq!(stops.push("é EN"), ("é ".to_owned(), false));
        assert_eq!(stops.finish(), "EN");
    }

    proptest! {
        /// In whatever parts a text comes, what is given out is the text up to the first stop text.
        #[test]
        fn parts_make_no_difference(text in "[abé]{0,24}", cuts in proptest::collection::vec(0usize..24, 0..6), stop in "[abé]{1,3}") {
            let mut stops = Stops::new(vec![stop.clone()]);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| text.is_char_boundary(cut.min(text.len()))).map(|cut| cut.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let (mut out, mut from, mut ended) = (String::new(), 0, false);
            for cut in cuts {
                let (new, end) = stops.push(&text[from..cut]);
                out += &new;
                from = cut;
                if end {
                    ended = true;
                    break;
                }
            }
            if !ended {
                out += &stops.finish();
            }
            prop_assert_eq!(out, text.split(stop.as_str()).next().unwrap());
            prop_assert_eq!(ended, text.contains(stop.as_str()));
        }
    }
}
