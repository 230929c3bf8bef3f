//! What rollouts make of policies, tasks and a suite.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use pixio_eval_tasks::robot::{Scores, Setup, Variant, suite};
use proptest::prelude::*;
use schema::{
    EpisodeRow, FeatureStage, ImageStage, ObservationStage, PolicyProtocol, Render, RolloutStage,
    SimulatorStage, Source, Tokens,
};

const EPOCHS: [usize; 3] = [6, 11, 16];
const SEEDS: [u64; 2] = [100, 200];
const TASKS: [&str; 2] = ["drawer-open", "hammer"];

fn protocol() -> PolicyProtocol {
    let Setup { mut tasks, training, .. } = suite("metaworld").unwrap().setup(Variant::Published);
    tasks.retain(|task| TASKS.contains(&task.name.as_str()));
    for task in &mut tasks {
        (task.epochs, task.evaluations, task.episodes) = (EPOCHS[2], EPOCHS.to_vec(), 2);
    }
    PolicyProtocol {
        image: ImageStage {
            revision: 1,
            resize: 256,
            crop: 256,
            filter: "bicubic".to_owned(),
            mean: [0.5; 3],
            std: [0.5; 3],
        },
        feature: FeatureStage {
            revision: 1,
            block: 0,
            tokens: Tokens::SummaryMean,
            class_tokens: None,
            final_norm: true,
            dtype: "f32".to_owned(),
        },
        observation: ObservationStage {
            revision: 1,
            source: Source::Images,
            frames: 3,
            proprioception: true,
        },
        training,
        rollout: RolloutStage { revision: 1, together: 16 },
        simulator: SimulatorStage {
            versions: Vec::new(),
            render: Render { side: 256, shadows: true, reflections: true, samples: 4 },
        },
        tasks,
        seeds: SEEDS.to_vec(),
    }
}

fn row(task: &str, seed: u64, epoch: usize, episode: u32, score: f64) -> EpisodeRow {
    EpisodeRow {
        task: task.to_owned(),
        seed,
        epoch: epoch as u32,
        episode,
        score,
        reward: 0.0,
        success: None,
        steps: 500,
    }
}

/// Two episodes of every policy at every evaluation, from their scores by task, seed and epoch.
fn rows(scores: &[[[[f64; 2]; 3]; 2]; 2]) -> Vec<EpisodeRow> {
    let mut rows = Vec::new();
    for (task, scores) in TASKS.iter().zip(scores) {
        for (seed, scores) in SEEDS.iter().zip(scores) {
            for (epoch, scores) in EPOCHS.iter().zip(scores) {
                for (episode, score) in scores.iter().enumerate() {
                    rows.push(row(task, *seed, *epoch, episode as u32, *score));
                }
            }
        }
    }
    rows
}

fn named(values: [f64; 2]) -> BTreeMap<String, f64> {
    TASKS.iter().map(|task| (*task).to_owned()).zip(values).collect()
}

#[test]
fn the_three_choices_of_evaluations_are_told_apart() {
    // Means of policies:   drawer-open 100: 50 0 20, 200: 10 60 20; hammer 100: 0 30 90, 200: 40 50 10
    let rows = rows(&[
        [[[0.0, 100.0], [0.0, 0.0], [20.0, 20.0]], [[10.0, 10.0], [20.0, 100.0], [20.0, 20.0]]],
        [[[0.0, 0.0], [30.0, 30.0], [80.0, 100.0]], [[40.0, 40.0], [50.0, 50.0], [10.0, 10.0]]],
    ]);
    let protocol = protocol();
    let scores = Scores::new(&protocol, &rows);
    assert_eq!(scores.policy("drawer-open", 200, 11), Some(60.0));
    assert_eq!(scores.policy("drawer-open", 300, 11), None);
    assert_eq!(scores.task("hammer", 6), Some(20.0));
    assert_eq!(scores.last(), Some(named([20.0, 50.0])));
    // After 6, 11 and 16 epochs the suite is at 25, 35 and 35: the first of the best is taken.
    assert_eq!(scores.best(), Some(named([30.0, 40.0])));
    assert_eq!(scores.best_each(), Some(named([55.0, 70.0])));
    assert_eq!(Scores::suite(&named([55.0, 70.0])), 62.5);
}

#[test]
fn what_was_not_run_has_no_score() {
    let protocol = protocol();
    let all = rows(&[[[[1.0; 2]; 3]; 2]; 2]);
    let scores = Scores::new(&protocol, &[]);
    assert_eq!((scores.last(), scores.best(), scores.best_each()), (None, None, None));
    // One policy's last evaluation is missing.
    let gone = |row: &EpisodeRow| row.task == "hammer" && row.seed == 200 && row.epoch == 16;
    let some: Vec<_> = all.iter().filter(|row| !gone(row)).cloned().collect();
    let scores = Scores::new(&protocol, &some);
    assert_eq!(scores.last(), None);
    assert_eq!(scores.best(), Some(named([1.0; 2])));
    // Suites whose tasks are evaluated at different epochs have no one best evaluation.
    let mut uneven = protocol.clone();
    uneven.tasks[1].evaluations = vec![16];
    assert_eq!(Scores::new(&uneven, &all).best(), None);
    assert!(Scores::new(&uneven, &all).best_each().is_some());
}

proptest! {
    /// Each choice is at least the one before; none leaves the range of the episodes or depends on
    /// their order.
    #[test]
    fn choices_are_ordered_and_bounded(
        values in prop::collection::vec(0.0..=100.0_f64, 24),
        shuffle in prop::collection::vec(0..1000_u32, 24),
    ) {
        let mut all = rows(&[[[[0.0; 2]; 3]; 2]; 2]);
        for (row, value) in all.iter_mut().zip(&values) {
            row.score = *value;
        }
        let protocol = protocol();
        let of = |rows: &[EpisodeRow]| {
            let scores = Scores::new(&protocol, rows);
            [scores.last(), scores.best(), scores.best_each()].map(|tasks| Scores::suite(&tasks.unwrap()))
        };
        let found = of(&all);
        let (low, high) = values.iter().fold((100.0_f64, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
        let order = [low, found[0], found[1], found[2], high];
        prop_assert!(order.windows(2).all(|pair| pair[0] <= pair[1] + 1e-9), "{order:?}");

        let mut keyed: Vec<_> = shuffle.into_iter().zip(all).collect();
        keyed.sort_by_key(|(key, _)| *key);
        let shuffled: Vec<_> = keyed.into_iter().map(|(_, row)| row).collect();
        for (a, b) in found.iter().zip(of(&shuffled)) {
            prop_assert!((a - b).abs() < 1e-9, "{a}, {b}");
        }
    }
}
