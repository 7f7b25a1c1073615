//! How sure a score is: standard errors, and comparisons of two runs on the same questions.
//!
//! Questions are a sample of all that could have been asked, so that a score on 500 of them is known to some points only. Two methods on the same
//! questions can be told apart much better than their errors suggest, because what makes a question hard is the same for both.

mod binomial;
mod marks;
mod paired;
mod seeds;

pub use binomial::mcnemar;
pub use marks::{Combine, Mark, Marks, Unit};
pub use paired::{Comparison, compare};
pub use seeds::{Seeds, seeds};
