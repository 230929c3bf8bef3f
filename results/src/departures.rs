//! What sets policies' results apart from the published ones, in words.

use schema::{RunPlan, Source, Stages};

use crate::text::shown_protocol;

/// Why a run's figures are not to be read beside published ones; none where its protocol allows it, and
/// for tasks whose protocol's name says all.
pub(crate) fn differs(plan: &RunPlan) -> Option<String> {
    let Stages::Policy(policy) = &plan.protocol.stages else { return None };
    let name = shown_protocol(plan);
    let mut said = Vec::new();
    let mut say = |word: &str, what: &str| {
        if name.contains(word) {
            said.push(what.to_owned());
        }
    };
    say("made", "cloned from generated demonstrations, not from the published ones");
    say("lite", "fewer tasks, demonstrations, seeds and evaluations");
    say("render=fast", "simpler images");
    say("sample", "a trial of few demonstrations and rollouts");
    if name.contains("simulators=") {
        let versions = policy.simulator.versions.join(", ");
        said.push(format!("today's simulators, not the original ones: {versions}"));
    }
    if policy.observation.source == Source::State {
        said.push("the policies see the simulator's state instead of features".to_owned());
    }
    (!said.is_empty())
        .then(|| format!("{}; not comparable with published figures", said.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{dense_record, policy_record};

    #[test]
    fn every_protocol_that_is_not_the_published_one_is_told() {
        let told = |name: &str| {
            let mut record = policy_record("pixio-b", "metaworld", 80.0);
            record.plan.protocol.name = name.to_owned();
            differs(&record.plan)
        };
        assert_eq!(told("pixio"), None);
        for (name, word) in [
            ("cortexbench-made", "generated demonstrations"),
            ("cortexbench-lite", "fewer tasks"),
            ("sample", "a trial"),
            (
                "pixio+simulators=metaworld-3.1.1",
                "today's simulators, not the original ones: mujoco 3.3.0",
            ),
        ] {
            let told = told(name).unwrap();
            assert!(told.contains(word), "{told}");
            assert!(told.ends_with("; not comparable with published figures"), "{told}");
        }
        insta::assert_snapshot!(told("cortexbench-lite+made+tasks=reach").unwrap(), @"cloned from generated demonstrations, not from the published ones; fewer tasks, demonstrations, seeds and evaluations; not comparable with published figures");
        let mut state = policy_record("state", "metaworld", 80.0);
        if let Stages::Policy(policy) = &mut state.plan.protocol.stages {
            policy.observation.source = Source::State;
        }
        assert!(
            differs(&state.plan).unwrap().contains("the simulator's state instead of features")
        );
        let mut dense = dense_record("pixio-b", "nyuv2", "dpt", 0.5);
        dense.plan.protocol.name = "sample".to_owned();
        assert_eq!(differs(&dense.plan), None);
    }
}
