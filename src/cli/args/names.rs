//! Names on the command line: case is ignored, and the nearest known name is suggested.

use secateur_backends::{BACKENDS, operations::Operation};

use crate::{
    pruner::{Params, methods},
    task::TASKS,
};

/// The least likeness (by Jaro and Winkler) of a name that is suggested.
const LIKE: f64 = 0.8;

/// A list of methods with commas, or `all`.
pub(super) fn method_list(text: &str) -> Result<String, String> {
    let known: Vec<&str> = methods(Params::default()).iter().map(|method| method.name()).chain(["all"]).collect();
    let names = text.split(',').map(|name| read("method", name, &known));
    Ok(names.collect::<Result<Vec<_>, _>>()?.join(","))
}

/// A benchmark.
pub(super) fn benchmark(text: &str) -> Result<String, String> {
    let known: Vec<&str> = TASKS.iter().map(|task| task.name()).collect();
    read("benchmark", text, &known)
}

/// A backend.
pub(super) fn backend(text: &str) -> Result<String, String> {
    let known: Vec<&str> = BACKENDS.iter().map(|row| row.name).collect();
    read("backend", text, &known)
}

/// Operations that go by their reference bodies.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Operations(pub(super) Vec<Operation>);

/// Operations, with commas; none in an empty variable.
pub(super) fn operations(text: &str) -> Result<Operations, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::parse).collect::<Result<_, _>>().map(Operations)
}

fn read(what: &str, text: &str, known: &[&str]) -> Result<String, String> {
    let name = text.trim().to_lowercase();
    if known.contains(&name.as_str()) {
        return Ok(name);
    }
    let likeness = |other: &str| strsim::jaro_winkler(&name, other);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let suggestion = match nearest {
        Some(nearest) if likeness(nearest) >= LIKE => format!("; did you mean `{nearest}`?"),
        _ => ";".to_owned(),
    };
    Err(format!("unknown {what} `{}`{suggestion} known: {}", text.trim(), known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        assert_eq!(method_list("FasterVLM, random"), Ok("fastervlm,random".to_owned()));
        assert_eq!(benchmark("MME"), Ok("mme".to_owned()));
        assert_eq!(backend("Flex"), Ok("flex".to_owned()));
        for (wrong, right) in [("fastvlm", "fastervlm"), ("vispruner2", "vispruner"), ("cdprunner", "cdpruner")] {
            assert!(method_list(wrong).unwrap_err().contains(&format!("did you mean `{right}`?")), "{wrong}");
        }
        assert!(benchmark("vqa-v2").unwrap_err().contains("did you mean `vqav2`?"));
        assert_eq!(operations(""), Ok(Operations(Vec::new())));
        assert_eq!(operations("attend, linear"), Ok(Operations(vec![Operation::Attend, Operation::Linear])));
        assert!(operations("attention").is_err());
        assert!(!backend("tpu").unwrap_err().contains("did you mean"));
    }
}
