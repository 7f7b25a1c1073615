//! A measured question on its way from a worker, to the last bit.

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::analysis::Attention;

/// An [`Attention`], or the reason why a question is skipped. Numbers are the base64 of little-endian f32.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sent {
    Measured { cls: String, layers: Vec<[String; 3]>, images: Vec<usize>, all: Vec<usize>, texts: usize },
    Skipped(String),
}

impl Sent {
    pub(super) fn write(outcome: &Result<Attention, String>) -> anyhow::Result<Value> {
        let sent = match outcome {
            Ok(Attention { cls, layers, images, all, texts }) => Self::Measured {
                cls: encode(cls),
                layers: layers.iter().map(|kinds| kinds.each_ref().map(|kind| encode(kind))).collect(),
                images: images.clone(),
                all: all.clone(),
                texts: *texts,
            },
            Err(reason) => Self::Skipped(reason.clone()),
        };
        Ok(serde_json::to_value(sent)?)
    }

    pub(super) fn read(value: Value) -> anyhow::Result<Result<Attention, String>> {
        Ok(match serde_json::from_value(value).context("a worker gave no attention")? {
            Self::Skipped(reason) => Err(reason),
            Self::Measured { cls, layers, images, all, texts } => {
                let kinds = |[a, b, c]: [String; 3]| anyhow::Ok([decode(&a)?, decode(&b)?, decode(&c)?]);
                let layers = layers.into_iter().map(kinds).collect::<anyhow::Result<_>>()?;
                Ok(Attention { cls: decode(&cls)?, layers, images, all, texts })
            }
        })
    }
}

fn encode(numbers: &[f32]) -> String {
    STANDARD.encode(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
}

fn decode(text: &str) -> anyhow::Result<Vec<f32>> {
    let bytes = STANDARD.decode(text).context("a worker gave no numbers")?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_arrive_to_the_last_bit() {
        let layers = vec![[vec![1e-30, -0.0], vec![], vec![f32::MIN_POSITIVE]]];
        let attention = Attention { cls: vec![0.1, 1.0 / 3.0], layers, images: vec![2, 1], all: vec![5, 4], texts: 3 };
        let found = Sent::read(Sent::write(&Ok(attention.clone())).unwrap()).unwrap().unwrap();
        assert_eq!(format!("{found:?}"), format!("{attention:?}"));
        assert_eq!(Sent::read(Sent::write(&Err("why".to_owned())).unwrap()).unwrap().unwrap_err(), "why");
    }
}
