use std::collections::HashSet;

use polars::prelude::Column;
use schema::EpisodeRow;

use super::{PredictionsError, Table, column};

/// A column that only policies have.
pub(super) const KIND: &str = "episode";

pub(super) fn columns(rows: &[EpisodeRow]) -> Result<Vec<Column>, PredictionsError> {
    check(rows)?;
    fn all<T>(rows: &[EpisodeRow], get: impl Fn(&EpisodeRow) -> T) -> Vec<T> {
        rows.iter().map(get).collect()
    }
    Ok(vec![
        column("task", rows.iter().map(|row| row.task.as_str()).collect::<Vec<_>>()),
        column("seed", all(rows, |row| row.seed)),
        column("epoch", all(rows, |row| row.epoch)),
        column(KIND, all(rows, |row| row.episode)),
        column("score", all(rows, |row| row.score)),
        column("reward", all(rows, |row| row.reward)),
        column("success", all(rows, |row| row.success)),
        column("steps", all(rows, |row| row.steps)),
    ])
}

pub(super) fn rows(table: &Table<'_>) -> Result<Vec<EpisodeRow>, PredictionsError> {
    let counts = |name: &str| table.values(name, |column| Ok(column.u32()?.iter().collect()));
    let numbers = |name: &str| table.values(name, |column| Ok(column.f64()?.iter().collect()));
    let tasks = table.texts("task")?;
    let seeds = table.values("seed", |column| Ok(column.u64()?.iter().collect()))?;
    let (epochs, episodes, steps) = (counts("epoch")?, counts(KIND)?, counts("steps")?);
    let (scores, rewards) = (numbers("score")?, numbers("reward")?);
    let successes = table.cells("success", |column| Ok(column.bool()?.iter().collect()))?;
    let policies = tasks.into_iter().zip(seeds).zip(epochs.into_iter().zip(episodes));
    let ends = scores.into_iter().zip(rewards).zip(successes.into_iter().zip(steps));
    let row = |(((task, seed), (epoch, episode)), ((score, reward), (success, steps)))| {
        EpisodeRow { task, seed, epoch, episode, score, reward, success, steps }
    };
    let rows: Vec<EpisodeRow> = policies.zip(ends).map(row).collect();
    check(&rows).map_err(|source| PredictionsError::Inconsistent {
        path: table.path.to_owned(),
        source: Box::new(source),
    })?;
    Ok(rows)
}

/// Every score is a number, and every rollout there once.
fn check(rows: &[EpisodeRow]) -> Result<(), PredictionsError> {
    let mut seen = HashSet::new();
    for (at, row) in rows.iter().enumerate() {
        let EpisodeRow { task, seed, epoch, episode, .. } = row;
        let which = || format!("{task}, seed {seed}, epoch {epoch}, episode {episode}");
        if !row.score.is_finite() {
            return Err(PredictionsError::Score { row: at, which: which(), found: row.score });
        }
        if !seen.insert((task, seed, epoch, episode)) {
            return Err(PredictionsError::EpisodeTwice { row: at, which: which() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::SampleRows;

    use super::super::tests::{refusal, round_trip, types};
    use super::super::write_rows;
    use super::*;
    use crate::fixtures::episode_rows;

    #[test]
    fn rows_come_back_and_the_columns_are_the_documented_ones() {
        let mut rows = episode_rows(3);
        rows[1].success = None;
        rows[2].task = "küche 厨房".to_owned();
        rows[2].seed = u64::MAX;
        let rows = SampleRows::Policy(rows);
        assert_eq!(round_trip(&rows), rows);
        assert_eq!(round_trip(&SampleRows::Policy(Vec::new())), SampleRows::Policy(Vec::new()));
        insta::assert_snapshot!(types(&rows), @"task str, seed u64, epoch u32, episode u32, score f64, reward f64, success bool, steps u32");
    }

    #[test]
    fn a_score_that_is_no_number_and_a_rollout_told_twice_are_refused() {
        let told = |rows: Vec<EpisodeRow>| {
            write_rows(Vec::new(), &SampleRows::Policy(rows)).unwrap_err().to_string()
        };
        let mut rows = episode_rows(2);
        rows[3].score = f64::NAN;
        insta::assert_snapshot!(told(rows), @"row 3 (drawer-open, seed 100, epoch 11, episode 1) has the score NaN, expected a number from 0 to 100");
        let mut rows = episode_rows(2);
        rows[5] = rows[4].clone();
        insta::assert_snapshot!(told(rows), @"row 5 (drawer-open, seed 200, epoch 6, episode 0) is the second of this rollout");
    }

    #[test]
    fn a_file_without_a_value_is_refused() {
        let good = columns(&episode_rows(1)[..2]).unwrap();
        let refused = |at: usize, odd: Column| {
            let mut columns = good.clone();
            columns[at] = odd;
            refusal(columns)
        };
        insta::assert_snapshot!(refused(4, column("score", vec![Some(1.0), None])), @"FILE has no value in column score, row 1");
        insta::assert_snapshot!(refused(4, column("score", vec![1.0, f64::INFINITY])), @"FILE: row 1 (drawer-open, seed 100, epoch 11, episode 0) has the score inf, expected a number from 0 to 100");
        insta::assert_snapshot!(refused(1, column("seed", vec![1_u32, 2])), @"FILE is not a complete predictions file: invalid series dtype: expected `UInt64`, got `u32` for series with name `seed`");
        insta::assert_snapshot!(refused(7, column("length", vec![1_u32, 2])), @r#"FILE is not a complete predictions file: not found: "steps" not found"#);
        assert!(!refused(6, column("success", vec!["yes", "no"])).is_empty());
    }

    proptest! {
        #[test]
        fn any_rows_come_back(
            rows in proptest::collection::vec(
                (any::<(String, u64, u32, u32, Option<bool>, u32)>(), -1e300..1e300_f64, any::<u64>()),
                0..20,
            ),
        ) {
            let mut seen = HashSet::new();
            let rows: Vec<EpisodeRow> = rows
                .into_iter()
                .map(|((task, seed, epoch, episode, success, steps), score, reward)| EpisodeRow {
                    task, seed, epoch, episode, score, reward: f64::from_bits(reward), success, steps,
                })
                .filter(|row| seen.insert((row.task.clone(), row.seed, row.epoch, row.episode)))
                .collect();
            let SampleRows::Policy(back) = round_trip(&SampleRows::Policy(rows.clone())) else {
                return Err(TestCaseError::fail("another kind came back"));
            };
            prop_assert_eq!(back.len(), rows.len());
            for (mut back, mut row) in back.into_iter().zip(rows) {
                let same = back.reward.to_bits() == row.reward.to_bits()
                    || (back.reward.is_nan() && row.reward.is_nan());
                prop_assert!(same);
                (back.reward, row.reward) = (0.0, 0.0);
                prop_assert_eq!(back, row);
            }
        }
    }
}
