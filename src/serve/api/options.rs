//! The pruning that a request asks for: method and budget, and what the answer says of it.

use serde::Deserialize;
use serde_json::Value;

use super::{ApiError, ChatRequest};
use crate::{image::Grid, pruner::Budget};

/// The method and the budget of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::serve) struct Pruning {
    /// The method's name; `none` without a budget.
    pub(in crate::serve) method: &'static str,
    pub(in crate::serve) budget: Option<Budget>,
    /// Whether the answer lists the kept patches.
    pub(in crate::serve) kept: bool,
    /// Whether the answer has drawings of the kept patches and of the method's scores.
    pub(in crate::serve) drawn: bool,
}

/// The methods that requests can ask for, and what they may ask.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Offer {
    /// The methods' names.
    pub(in crate::serve) methods: Vec<&'static str>,
    /// The methods that this checkpoint cannot run, with the reasons.
    pub(in crate::serve) missing: Vec<(&'static str, String)>,
    /// The method and the budget of a request that names none.
    pub(in crate::serve) usual: (&'static str, Option<Budget>),
    /// The tokens of an item before pruning.
    pub(in crate::serve) grid: Grid,
}

/// The field `secateur` of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    method: Option<String>,
    visual_tokens: Option<Value>,
    #[serde(default)]
    kept: bool,
    #[serde(default)]
    drawn: bool,
}

/// The fields of `secateur` that are known.
const KNOWN: &str = "method, visual_tokens, kept, drawn";

impl Offer {
    /// The pruning that a request asks for.
    ///
    /// # Errors
    /// When the method is not known or cannot run here, or the budget is not possible or given twice.
    pub(in crate::serve) fn pruning(&self, request: &ChatRequest) -> Result<Pruning, ApiError> {
        let Asked { method, visual_tokens, kept, drawn } = asked(request)?;
        let given: Vec<(&str, Budget)> = [
            visual_tokens.map(|value| budget("secateur.visual_tokens", &value)),
            request.visual_token_budget.as_ref().map(|value| budget("visual_token_budget", value)),
        ]
        .into_iter()
        .flatten()
        .collect::<Result<_, _>>()?;
        let ratio = request.pruning_ratio.map(left).transpose()?;
        if given.len() + usize::from(ratio.is_some()) > 1 {
            let message =
                "the budget is given twice; give one of secateur.visual_tokens, visual_token_budget and pruning_ratio";
            return Err(ApiError::bad("secateur.visual_tokens", message));
        }
        let method = method.map(|name| self.method(&name)).transpose()?;
        let (param, tokens) = match (given.first(), ratio, method) {
            (Some(&(param, budget)), ..) => (param, Some(budget)),
            (None, Some(ratio), _) => ("pruning_ratio", ratio),
            (None, None, _) => ("secateur.method", self.usual.1),
        };
        let tokens = tokens.filter(|_| method != Some("none"));
        let name = method.unwrap_or(self.usual.0);
        if method.is_some_and(|name| name != "none") && tokens.is_none() && ratio.is_none() {
            let message = format!("`{name}` needs a budget: give secateur.visual_tokens, as 64 or \"12.5%\"");
            return Err(ApiError::bad("secateur.visual_tokens", message));
        }
        if let Some(budget) = tokens {
            budget.of(self.grid.tokens()).map_err(|error| ApiError::bad(param, error.to_string()))?;
        }
        // The usual method is `none` where the command line has no budget, and a request with a budget means one that prunes.
        let name = match (tokens, name) {
            (None, _) => "none",
            (Some(_), "none") => "fastervlm",
            (Some(_), name) => name,
        };
        Ok(Pruning { method: name, budget: tokens, kept, drawn })
    }

    /// The method of a name.
    fn method(&self, name: &str) -> Result<&'static str, ApiError> {
        if let Some(known) = self.methods.iter().find(|known| **known == name) {
            return Ok(known);
        }
        let reason = self.missing.iter().find(|(known, _)| *known == name);
        let message = reason.map_or_else(
            || format!("secateur.method is `{name}`; known: {}", self.methods.join(", ")),
            |(_, reason)| format!("secateur.method is `{name}`, which this checkpoint cannot run: {reason}"),
        );
        Err(ApiError::bad("secateur.method", message))
    }
}

/// The field `secateur`, whose own fields must be known: a wrong name would prune otherwise than was asked for, without a word.
fn asked(request: &ChatRequest) -> Result<Asked, ApiError> {
    let Some(value) = request.secateur.as_ref().filter(|value| !value.is_null()) else { return Ok(Asked::default()) };
    let Some(fields) = value.as_object() else {
        return Err(ApiError::bad("secateur", "the field `secateur` holds no object, as {\"visual_tokens\": 64}"));
    };
    if let Some(name) = fields.keys().find(|name| !KNOWN.split(", ").any(|known| known == *name)) {
        let message = format!("secateur.{name} is not known; {KNOWN} are");
        return Err(ApiError::bad(format!("secateur.{name}"), message));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = format!("secateur.{}", error.path());
        let message = format!("the request: {}", secateur_weights::json_words(error.inner(), &field));
        ApiError::bad(field, message)
    })
}

/// A number of tokens, or a share.
fn budget<'p>(param: &'p str, value: &Value) -> Result<(&'p str, Budget), ApiError> {
    let budget = match value {
        Value::Number(number) => number.to_string().parse(),
        Value::String(text) => text.parse(),
        _ => Err("a number of tokens or a share is expected, such as 64 or \"12.5%\"".to_owned()),
    };
    budget.map(|budget| (param, budget)).map_err(|reason| ApiError::bad(param, format!("{param} is {value}: {reason}")))
}

/// The budget that is left when so many per cent of the tokens are removed; `None` where none are.
fn left(ratio: f64) -> Result<Option<Budget>, ApiError> {
    if !(0.0..100.0).contains(&ratio) {
        let message =
            format!("pruning_ratio is {ratio}: it is the per cent of visual tokens to remove, from 0 to below 100");
        return Err(ApiError::bad("pruning_ratio", message));
    }
    Ok((ratio > 0.0).then_some(Budget::Share(100.0 - ratio)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        let missing = vec![("datp", "it reads the last layer".to_owned())];
        Offer {
            methods: vec!["none", "fastervlm", "cdpruner"],
            missing,
            usual: ("cdpruner", None),
            grid: Grid::image(24, 24),
        }
    }

    fn ask(fields: &str) -> Result<Pruning, String> {
        let body = format!("{{\"messages\": []{fields}}}");
        let request = ChatRequest::read(body.as_bytes()).map_err(|error| error.message)?;
        offer().pruning(&request).map_err(|error| format!("{}: {}", error.param.unwrap_or_default(), error.message))
    }

    #[test]
    fn a_budget_is_given_in_four_ways() {
        let with = |method, budget| Pruning { method, budget, kept: false, drawn: false };
        for (fields, expected) in [
            ("", with("none", None)),
            (r#", "secateur": null"#, with("none", None)),
            (r#", "secateur": {"visual_tokens": 64}"#, with("cdpruner", Some(Budget::Tokens(64)))),
            (
                r#", "secateur": {"method": "fastervlm", "visual_tokens": "12.5%"}"#,
                with("fastervlm", Some(Budget::Share(12.5))),
            ),
            (r#", "visual_token_budget": 64"#, with("cdpruner", Some(Budget::Tokens(64)))),
            (r#", "pruning_ratio": 75"#, with("cdpruner", Some(Budget::Share(25.0)))),
            (r#", "pruning_ratio": 0"#, with("none", None)),
            (
                r#", "pruning_ratio": 50, "secateur": {"method": "fastervlm"}"#,
                with("fastervlm", Some(Budget::Share(50.0))),
            ),
            (r#", "secateur": {"method": "none", "visual_tokens": 64}"#, with("none", None)),
        ] {
            assert_eq!(ask(fields), Ok(expected), "{fields}");
        }
    }

    #[test]
    fn what_is_not_possible_is_refused_with_its_field() {
        for (fields, start) in [
            (r#", "secateur": 64"#, "secateur: "),
            (r#", "secateur": {"tokens": 64}"#, "secateur.tokens: "),
            (r#", "secateur": {"kept": "yes"}"#, "secateur.kept: "),
            (r#", "secateur": {"method": "fastervlm"}"#, "secateur.visual_tokens: `fastervlm` needs a budget"),
            (r#", "secateur": {"method": "magic", "visual_tokens": 64}"#, "secateur.method: "),
            (
                r#", "secateur": {"method": "datp", "visual_tokens": 64}"#,
                "secateur.method: secateur.method is `datp`, which this checkpoint",
            ),
            (r#", "secateur": {"visual_tokens": 577}"#, "secateur.visual_tokens: a budget of 577"),
            (r#", "secateur": {"visual_tokens": -1}"#, "secateur.visual_tokens: "),
            (r#", "secateur": {"visual_tokens": [64]}"#, "secateur.visual_tokens: "),
            (r#", "visual_token_budget": 0"#, "visual_token_budget: "),
            (r#", "pruning_ratio": 100"#, "pruning_ratio: "),
            (
                r#", "pruning_ratio": 50, "visual_token_budget": 64"#,
                "secateur.visual_tokens: the budget is given twice",
            ),
        ] {
            let error = ask(fields).unwrap_err();
            assert!(error.starts_with(start), "{fields}: {error}");
        }
    }
}
