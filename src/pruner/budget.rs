//! Budgets: how many tokens a method keeps.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::check_budget;
use crate::Error;

/// The budget of a method: how many tokens it keeps of each crop, frame, image or temporal slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// A number of tokens.
    Tokens(usize),
    /// A percentage of the tokens.
    Share(f64),
}

impl Budget {
    /// The number of tokens to keep of `tokens`: a share is rounded to the nearest number, and keeps at least one.
    ///
    /// # Errors
    /// When the budget is not between 1 and `tokens`.
    pub fn of(self, tokens: usize) -> Result<usize, Error> {
        let budget = match self {
            Self::Tokens(budget) => budget,
            Self::Share(percent) => (((percent * tokens as f64 + 50.0) / 100.0) as usize).max(1),
        };
        check_budget(budget, tokens).map(|()| budget)
    }
}

impl Budget {
    /// The number of tokens to keep of an item whose number of `tokens` depends on its image: a budget above it keeps all.
    ///
    /// # Errors
    /// When the budget is 0.
    pub fn of_any(self, tokens: usize) -> Result<usize, Error> {
        match self {
            Self::Tokens(budget) => Self::Tokens(budget.min(tokens)).of(tokens),
            share => share.of(tokens),
        }
    }
}

impl From<usize> for Budget {
    fn from(tokens: usize) -> Self {
        Self::Tokens(tokens)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tokens(tokens) => tokens.fmt(f),
            Self::Share(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            return match text.parse() {
                Ok(0) => Err("a budget of 0 tokens is not possible: it is 1 up to the tokens of one crop".to_owned()),
                Ok(tokens) => Ok(Self::Tokens(tokens)),
                Err(_) => Err("a number of tokens or a share is expected, such as 64 or 12.5%".to_owned()),
            };
        };
        match percent.parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Share(percent)),
            _ => Err("a share is above 0% and at most 100%".to_owned()),
        }
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Tokens(tokens) => tokens.serialize(to),
            Self::Share(_) => self.to_string().serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of tokens, or a share such as \"12.5%\"")]
        enum Raw {
            Tokens(usize),
            Share(String),
        }
        match Raw::deserialize(from)? {
            Raw::Tokens(tokens) => Ok(Self::Tokens(tokens)),
            Raw::Share(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_and_keep_one_at_least() {
        for (text, tokens, expected) in
            [("12.5%", 576, 72), ("11.1%", 576, 64), ("0.01%", 576, 1), ("100%", 7, 7), ("50%", 3, 2), ("64", 576, 64)]
        {
            let budget: Budget = text.parse().unwrap();
            assert_eq!(budget.of(tokens).unwrap(), expected, "{text} of {tokens}");
            assert_eq!(budget.to_string(), text);
            let json = serde_json::to_string(&budget).unwrap();
            assert_eq!(serde_json::from_str::<Budget>(&json).unwrap(), budget, "{json}");
        }
        assert!(Budget::Tokens(577).of(576).is_err() && Budget::Tokens(0).of(576).is_err());
        for text in ["0", "-1", "0%", "101%", "NaN%", "inf%", "%", "", "many", "12,5%"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }
}
