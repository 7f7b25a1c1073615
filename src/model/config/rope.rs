//! Rotary positions in a config, as different versions of transformers write them.

use std::path::Path;

use serde::Deserialize;

use crate::Error;

/// The settings that rotary frequencies are computed from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// The scaling of the frequencies for longer sequences than the model was trained on first.
    pub scaling: RopeScaling,
    /// The number of frequencies that turn with the position in time, in height and in width, in this order; `None` where a token has one position
    /// (`mrope_section`).
    pub sections: Option<[usize; 3]>,
}

/// The scaling of rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Linear scaling: each frequency is divided by this factor.
    Linear(f64),
    /// Llama-3.1's rule: low frequencies are divided, high ones kept, and those in between interpolated.
    Llama3(Llama3Scaling),
}

/// The numbers of Llama-3.1's rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Divisor of low frequencies.
    pub factor: f64,
    /// Bound of low frequencies: their waves are longer than `original_positions / low_freq_factor`.
    pub low_freq_factor: f64,
    /// Bound of high frequencies: their waves are shorter than `original_positions / high_freq_factor`.
    pub high_freq_factor: f64,
    /// Number of positions of the model before it was stretched.
    pub original_positions: f64,
}

impl Default for RopeConfig {
    fn default() -> Self {
        Self { theta: 10_000.0, scaling: RopeScaling::None, sections: None }
    }
}

impl RopeConfig {
    /// The frequencies of a head of `head_dim` numbers, `head_dim / 2` of them, in transformers' order of f32 operations.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let half = head_dim / 2;
        // Exponents, powers and their inverses are each rounded to f32, as PyTorch does.
        let exponent = |i: usize| f64::from((2 * i) as f32 / head_dim as f32);
        let plain = (0..half).map(|i| 1.0 / (self.theta.powf(exponent(i)) as f32));
        match self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear(factor) => plain.map(|frequency| frequency / factor as f32).collect(),
            RopeScaling::Llama3(scaling) => plain.map(|frequency| scaling.apply(frequency)).collect(),
        }
    }

    /// The factor for `max_position_embeddings` of the config: with linear scaling, that field still has the number of positions before it.
    pub(super) fn stretch(&self) -> f64 {
        match self.scaling {
            RopeScaling::Linear(factor) => factor,
            RopeScaling::None | RopeScaling::Llama3(_) => 1.0,
        }
    }
}

impl Llama3Scaling {
    /// Scales a frequency as transformers' `_compute_llama3_parameters`, in f32 as there.
    fn apply(&self, frequency: f32) -> f32 {
        let [factor, low, high, original] =
            [self.factor, self.low_freq_factor, self.high_freq_factor, self.original_positions].map(|x| x as f32);
        let wave = std::f32::consts::TAU / frequency;
        if wave < original / high {
            frequency
        } else if wave > original / low {
            frequency / factor
        } else {
            let smooth = (original / wave - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }
}

/// The field `rope_scaling`, or transformers 5's `rope_parameters`, which holds the base, too.
#[derive(Deserialize)]
pub(super) struct RawRope {
    /// The older name of `rope_type`; for a while both were written.
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    rope_theta: Option<f64>,
    mrope_section: Option<Vec<usize>>,
}

impl RawRope {
    /// The scaling that the field `field` asks for.
    fn scaling(&self, field: &str, path: &Path) -> Result<RopeScaling, Error> {
        let refuse = |reason: String| Err(Error::config(path, reason));
        let number = |name: &str, value: Option<f64>| match value {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            Some(value) => Err(Error::config(path, format!("{field}.{name} is {value}; a number above 0 is expected"))),
            None => Err(Error::config(path, format!("the field `{field}.{name}` is missing"))),
        };
        let kinds: Vec<&str> = [&self.kind, &self.rope_type].into_iter().flatten().map(String::as_str).collect();
        match (&kinds[..], self.factor) {
            ([], None) | (["default"] | ["default", "default"], _) => Ok(RopeScaling::None),
            // The first name of positions with three axes, whose frequencies are plain.
            (["mrope"] | ["mrope", "mrope"] | ["mrope", "default"], _) if self.mrope_section.is_some() => {
                Ok(RopeScaling::None)
            }
            ([], Some(factor)) => refuse(format!(
                "{field} has the factor {factor} and no rope_type; linear, llama3 and default are known"
            )),
            (["linear"] | ["linear", "linear"], factor) => Ok(RopeScaling::Linear(number("factor", factor)?)),
            (["llama3"] | ["llama3", "llama3"], factor) => {
                let scaling = Llama3Scaling {
                    factor: number("factor", factor)?,
                    low_freq_factor: number("low_freq_factor", self.low_freq_factor)?,
                    high_freq_factor: number("high_freq_factor", self.high_freq_factor)?,
                    original_positions: number(
                        "original_max_position_embeddings",
                        self.original_max_position_embeddings,
                    )?,
                };
                if scaling.low_freq_factor >= scaling.high_freq_factor {
                    let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
                    return refuse(format!(
                        "{field}.low_freq_factor is {low} and high_freq_factor {high}; the first is expected to be smaller"
                    ));
                }
                Ok(RopeScaling::Llama3(scaling))
            }
            (kinds, _) => {
                let found = secateur_weights::printable(&kinds.join("` and `"));
                refuse(format!("{field} is `{found}`; linear, llama3 and default are known"))
            }
        }
    }
}

impl RopeConfig {
    /// The checked settings of the fields `rope_theta`, `rope_scaling` and `rope_parameters`.
    pub(super) fn check(
        theta: Option<f64>,
        scaling: Option<RawRope>,
        parameters: Option<RawRope>,
        path: &Path,
    ) -> Result<Self, Error> {
        let mut rope = Self { theta: theta.unwrap_or(10_000.0), ..Self::default() };
        for (field, raw) in [("rope_scaling", scaling), ("rope_parameters", parameters)] {
            let Some(raw) = raw else { continue };
            rope.theta = raw.rope_theta.unwrap_or(rope.theta);
            if let Some(list) = &raw.mrope_section {
                let sections = list[..].try_into().map_err(|_| {
                    let reason =
                        format!("{field}.mrope_section is {list:?}; three numbers are expected: time, height, width");
                    Error::config(path, reason)
                })?;
                rope.sections = Some(sections);
            }
            match raw.scaling(field, path)? {
                RopeScaling::None => {}
                scaling => rope.scaling = scaling,
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

    fn llama3() -> Value {
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192})
    }

    #[test]
    fn every_way_of_writing_it_is_read() {
        let check = |scaling: Value, parameters: Value| {
            let raw = |value| serde_json::from_value::<Option<RawRope>>(value).unwrap();
            RopeConfig::check(Some(5e5), raw(scaling), raw(parameters), Path::new("config.json"))
                .map(|rope| (rope.theta, rope.scaling))
                .map_err(|error| error.to_string())
        };
        let none = || Value::Null;
        let linear = RopeScaling::Linear;
        assert_eq!(check(none(), none()), Ok((5e5, RopeScaling::None)));
        assert_eq!(check(json!({"type": "linear", "factor": 4.0}), none()), Ok((5e5, linear(4.0))));
        assert_eq!(
            check(json!({"type": "linear", "rope_type": "linear", "factor": 4.0}), none()),
            Ok((5e5, linear(4.0)))
        );
        assert_eq!(check(json!({"rope_type": "default"}), none()), Ok((5e5, RopeScaling::None)));
        assert_eq!(check(none(), json!({"rope_theta": 1e6, "rope_type": "default"})), Ok((1e6, RopeScaling::None)));
        assert_eq!(
            check(none(), json!({"rope_theta": 1e6, "rope_type": "linear", "factor": 2.0})),
            Ok((1e6, linear(2.0)))
        );
        let (_, scaling) = check(llama3(), none()).unwrap();
        let RopeScaling::Llama3(scaling) = scaling else { panic!("{scaling:?}") };
        assert_eq!((scaling.factor, scaling.original_positions), (8.0, 8192.0));
        let mut reversed = llama3();
        reversed["low_freq_factor"] = json!(4.0);
        for (scaling, parameters, named) in [
            (json!({"type": "dynamic", "factor": 2.0}), none(), "rope_scaling is `dynamic`"),
            (json!({"type": "linear", "factor": 0.0}), none(), "rope_scaling.factor is 0"),
            (json!({"factor": 2.0}), none(), "no rope_type"),
            (none(), json!({"rope_type": "llama3", "factor": 8.0}), "`rope_parameters.low_freq_factor` is missing"),
            (reversed, none(), "expected to be smaller"),
            (none(), json!({"rope_type": "default", "rope_theta": 0.0}), "rope_theta is 0"),
        ] {
            let error = check(scaling, parameters).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    /// Llama-3.1-8B's frequencies: the first are kept, the last divided by 8, and number 31 of 64, between both bands, by hand.
    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling =
            Llama3Scaling { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions: 8192.0 };
        let plain = RopeConfig { theta: 5e5, ..RopeConfig::default() }.frequencies(128);
        let scaled = RopeConfig { theta: 5e5, scaling: RopeScaling::Llama3(scaling), sections: None }.frequencies(128);
        assert_eq!(scaled[0], 1.0);
        assert_eq!(scaled[20], plain[20]);
        assert_eq!(scaled[63], plain[63] / 8.0);
        // 5e5^(-31/64) is 1.7358e-3, a wave of 3,619.7 positions: (8192 / 3619.7 - 1) / 3 is 0.42107.
        let (frequency, smooth) = (1.735_8e-3, 0.421_07);
        let expected = (1.0 - smooth) * frequency / 8.0 + smooth * frequency;
        assert!((f64::from(scaled[31]) / expected - 1.0).abs() < 1e-3, "{} {expected}", scaled[31]);
    }
}
