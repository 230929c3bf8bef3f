//! `--set KEY=VALUE`: a value of a resolved protocol in another one's place.

use schema::Stages;
use serde_json::Value;

use super::RunError;
use crate::registry::nearest;
use crate::resolve::Override;

/// What is settled elsewhere: by the backbone, the data, another flag, or the program itself.
const FIXED: [&str; 15] = [
    "kind",
    "limit",
    "head.kind",
    "feature.block",
    "feature.blocks",
    "feature.tokens",
    "feature.summary",
    "feature.class_tokens",
    "feature.dtype",
    "sample.crop",
    "evaluation.window",
    "image.crop",
    "image.resize",
    "image.filter",
    "observation.source",
];

/// The stages with a learning rate and weight decay, which are at these paths, and other values; and how
/// that departs from them.
pub(super) fn apply_with(
    stages: Stages,
    values: [Option<f64>; 2],
    paths: [&str; 2],
    changes: &[Override],
) -> Result<(Stages, String), RunError> {
    let mut all = Vec::new();
    for ((value, path), flag) in
        values.into_iter().zip(paths).zip(["learning-rate", "weight-decay"])
    {
        if let Some(value) = value {
            all.push((Override::number(path, value), Some(flag)));
        }
    }
    all.extend(changes.iter().map(|change| (change.clone(), None)));
    let mut departures = String::new();
    let mut stages = stages;
    for (change, flag) in &all {
        let departs;
        (stages, departs) = apply(stages, &[change])?;
        match flag {
            Some(flag) if !departs.is_empty() => {
                departures.push_str(&format!("+{flag}={}", change.value()));
            }
            _ => departures.push_str(&departs),
        }
    }
    Ok((stages, departures))
}

/// The stages with these values, and how that departs from them, behind a protocol's name.
fn apply(stages: Stages, changes: &[&Override]) -> Result<(Stages, String), RunError> {
    if changes.is_empty() {
        return Ok((stages, String::new()));
    }
    let wrong = |change: &Override, why: String, near| RunError::Set {
        given: change.to_string(),
        why,
        near,
    };
    let mut departures = String::new();
    let mut stages = stages;
    for change in changes {
        let Ok(mut json) = serde_json::to_value(&stages) else { continue };
        let mut known = Vec::new();
        leaves(&json, "", &mut known);
        let key = change.key();
        if !known.iter().any(|name| name == key) {
            let near = nearest(key, known.iter().map(String::as_str));
            let why = format!("this protocol has {}", known.join(", "));
            return Err(wrong(change, why, near));
        }
        let mut place = &mut json;
        for part in key.split('.') {
            place = &mut place[part];
        }
        if same(place, change.value()) {
            continue;
        }
        if std::mem::discriminant(place) != std::mem::discriminant(change.value()) {
            let why = format!("expected a value like {place}");
            return Err(wrong(change, why, Vec::new()));
        }
        let before = place.clone();
        *place = change.value().clone();
        stages = serde_json::from_value(json)
            .map_err(|_| wrong(change, format!("expected a value like {before}"), Vec::new()))?;
        departures.push_str(&format!("+{change}"));
    }
    Ok((stages, departures))
}

/// Whether 1 and 1.0 are one number.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Paths of the values that may be set.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let fixed = name == "revision" || FIXED.contains(&path.as_str());
        match value {
            Value::Object(_) if path != "objective" => leaves(value, &path, found),
            Value::Object(_) | Value::Null => {}
            _ if fixed => {}
            Value::Array(items) if items.iter().any(Value::is_object) => {}
            _ => found.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::{KnnProtocol, VoteStage};

    use super::*;
    use crate::run::image_stage;

    fn stages() -> Stages {
        Stages::Knn(KnnProtocol {
            image: image_stage(256, [0.5; 3], [0.5; 3]),
            feature: schema::FeatureStage {
                revision: 1,
                block: 11,
                tokens: schema::Tokens::SummaryMean,
                class_tokens: None,
                final_norm: false,
                dtype: "f32".to_owned(),
            },
            vote: VoteStage { revision: 1, k: vec![10, 20], temperature: 0.07 },
            limit: None,
        })
    }

    fn set(text: &str) -> Result<(Stages, String), RunError> {
        apply(stages(), &[&text.parse().unwrap()])
    }

    #[test]
    fn a_value_is_changed_and_told() {
        let (changed, departs) = set("vote.temperature=0.1").unwrap();
        assert_eq!(departs, "+vote.temperature=0.1");
        let Stages::Knn(knn) = changed else { panic!("another kind") };
        assert_eq!(knn.vote.temperature, 0.1);
        assert!(
            matches!(set("feature.final_norm=true").unwrap().0, Stages::Knn(knn) if knn.feature.final_norm)
        );
        // The value that is there is no departure.
        assert_eq!(set("vote.temperature=0.07").unwrap(), (stages(), String::new()));
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_refused() {
        let told = |text: &str| set(text).unwrap_err().to_string();
        insta::assert_snapshot!(told("vote.temprature=1"), @"--set vote.temprature=1: this protocol has feature.final_norm, image.mean, image.std, vote.k, vote.temperature");
        insta::assert_snapshot!(told("vote.temperature=hot"), @"--set vote.temperature=hot: expected a value like 0.07");
        insta::assert_snapshot!(told("vote.k=[0.5]"), @"--set vote.k=[0.5]: expected a value like [10,20]");
        for fixed in ["vote.revision=2", "feature.block=3", "image.crop=224"] {
            assert!(matches!(set(fixed), Err(RunError::Set { .. })), "{fixed}");
        }
        let Err(RunError::Set { near, .. }) = set("vote.temprature=1") else { panic!("taken") };
        assert_eq!(near[0], "vote.temperature");
    }
}
