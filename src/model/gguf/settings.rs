//! Settings of GGUF files, to read and to write.

use secateur_weights::{Gguf, Setting, Value};

use crate::Error;

/// A number that must be there.
///
/// # Errors
/// When it is missing, or no whole number.
pub(in crate::model) fn needed(file: &Gguf, key: &str) -> Result<usize, Error> {
    Ok(file.count(key)?.ok_or_else(|| file.missing(key))?)
}

/// The mean and the standard deviation of an image encoder's channels.
///
/// # Errors
/// When one is missing, or is not three numbers from 0 to 1.
pub(in crate::model) fn mean_and_std(file: &Gguf) -> Result<[[f64; 3]; 2], Error> {
    let number = |value: &Value| if let Value::Float(number) = value { Some(*number) } else { None };
    let three = |key: &str, is_possible: fn(f64) -> bool| {
        let list = file.list(key, "a list of numbers", number)?.ok_or_else(|| file.missing(key))?;
        let numbers: Option<[f64; 3]> =
            list[..].try_into().ok().filter(|list: &[f64; 3]| list.iter().all(|n| is_possible(*n)));
        numbers.ok_or_else(|| {
            let reason = format!("the setting `{key}` is {list:?}; three numbers from 0 to 1 are expected");
            Error::config(&file.path, reason)
        })
    };
    let mean = three("clip.vision.image_mean", |mean| (0.0..=1.0).contains(&mean))?;
    let std = three("clip.vision.image_std", |std| std > 0.0 && (std as f32).is_normal())?;
    Ok([mean, std])
}

/// A setting that is a text.
pub(in crate::model) fn text(key: &str, text: &str) -> (String, Setting) {
    (key.to_owned(), Setting::Text(text.to_owned()))
}

/// A setting that is a number from 0 on; sizes are far below 2³², as configs are checked.
pub(in crate::model) fn count(key: &str, count: usize) -> (String, Setting) {
    (key.to_owned(), Setting::Count(u32::try_from(count).unwrap_or(u32::MAX)))
}

/// A setting that is a number.
pub(in crate::model) fn number(key: &str, number: f64) -> (String, Setting) {
    (key.to_owned(), Setting::Number(number as f32))
}

/// A setting that is yes or no.
pub(in crate::model) fn flag(key: &str, flag: bool) -> (String, Setting) {
    (key.to_owned(), Setting::Flag(flag))
}

/// A setting that is three numbers.
pub(in crate::model) fn three(key: &str, numbers: [f32; 3]) -> (String, Setting) {
    (key.to_owned(), Setting::Numbers(numbers.to_vec()))
}
