//! Rotary positions in a config, as different versions of transformers write them.

use std::path::Path;

use serde::Deserialize;

use crate::Error;

/// `rope_scaling`, or transformers 5's `rope_parameters`, which holds the base, too.
#[derive(Deserialize)]
pub(super) struct RawRope {
    /// The older name; for a while both were written.
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_type: Option<String>,
    factor: Option<f64>,
    rope_theta: Option<f64>,
}

/// What rotary positions are computed from.
pub(super) struct Rope {
    /// Base of the frequencies.
    pub(super) theta: f64,
    /// How many positions count as one: 1 without scaling.
    pub(super) factor: f64,
}

impl Rope {
    /// Of the fields `rope_theta`, `rope_scaling` and `rope_parameters`.
    pub(super) fn check(
        theta: Option<f64>,
        scaling: Option<RawRope>,
        parameters: Option<RawRope>,
        path: &Path,
    ) -> Result<Self, Error> {
        let mut rope = Self { theta: theta.unwrap_or(10_000.0), factor: 1.0 };
        for (field, raw) in [("rope_scaling", scaling), ("rope_parameters", parameters)] {
            let Some(RawRope { kind, rope_type, factor, rope_theta }) = raw else { continue };
            rope.theta = rope_theta.unwrap_or(rope.theta);
            let kinds: Vec<String> = kind.into_iter().chain(rope_type).collect();
            let all_are = |known: &str| !kinds.is_empty() && kinds.iter().all(|kind| kind == known);
            match factor {
                None if kinds.is_empty() => {}
                _ if all_are("default") => {}
                Some(factor) if all_are("linear") && factor.is_finite() && factor > 0.0 => rope.factor = factor,
                Some(factor) if all_are("linear") => {
                    return Err(Error::config(
                        path,
                        format!("{field}.factor is {factor}; a number above 0 is expected"),
                    ));
                }
                None if all_are("linear") => {
                    return Err(Error::config(path, format!("the field `{field}.factor` is missing")));
                }
                Some(factor) if kinds.is_empty() => {
                    let reason =
                        format!("{field} has the factor {factor} and no rope_type; linear and default are known");
                    return Err(Error::config(path, reason));
                }
                _ => {
                    let found = secateur_weights::printable(&kinds.join("` and `"));
                    return Err(Error::config(path, format!("{field} is `{found}`; linear and default are known")));
                }
            }
        }
        // The base of powers that turn the more slowly the later they stand.
        if !(rope.theta >= 1.0 && (rope.theta as f32).is_finite()) {
            return Err(Error::config(path, format!("rope_theta is {:e}; a number from 1 is expected", rope.theta)));
        }
        Ok(rope)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_way_of_writing_it_is_read() {
        let check = |scaling: Value, parameters: Value| {
            let raw = |value| serde_json::from_value::<Option<RawRope>>(value).unwrap();
            Rope::check(Some(5e5), raw(scaling), raw(parameters), Path::new("config.json"))
                .map(|rope| (rope.theta, rope.factor))
                .map_err(|error| error.to_string())
        };
        let none = || Value::Null;
        assert_eq!(check(none(), none()), Ok((5e5, 1.0)));
        assert_eq!(check(json!({"type": "linear", "factor": 4.0}), none()), Ok((5e5, 4.0)));
        assert_eq!(check(json!({"type": "linear", "rope_type": "linear", "factor": 4.0}), none()), Ok((5e5, 4.0)));
        assert_eq!(check(json!({"rope_type": "default"}), none()), Ok((5e5, 1.0)));
        assert_eq!(check(none(), json!({"rope_theta": 1e6, "rope_type": "default"})), Ok((1e6, 1.0)));
        assert_eq!(check(none(), json!({"rope_theta": 1e6, "rope_type": "linear", "factor": 2.0})), Ok((1e6, 2.0)));
        for (scaling, parameters, named) in [
            (json!({"type": "dynamic", "factor": 2.0}), none(), "rope_scaling is `dynamic`"),
            (json!({"type": "linear", "factor": 0.0}), none(), "rope_scaling.factor is 0"),
            (json!({"factor": 2.0}), none(), "no rope_type"),
            (none(), json!({"rope_type": "llama3", "factor": 8.0}), "rope_parameters is `llama3`"),
            (none(), json!({"rope_type": "default", "rope_theta": 0.0}), "rope_theta is 0"),
        ] {
            let error = check(scaling, parameters).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
