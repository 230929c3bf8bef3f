//! Many backbones over many tasks, and one pair over many seeds.

use std::collections::BTreeMap;

use super::{Cell, CompareOptions, PairLine, Runs, SeedLine, Standing, direction, metric};
use crate::statistics::{mean_sd, ranks};

/// `cells` are those that every backbone has.
pub(super) fn standings(
    pairs: &[PairLine],
    names: &[String],
    cells: &BTreeMap<Cell, Runs>,
    options: &CompareOptions,
) -> Vec<Standing> {
    let mut sums = vec![0.0; names.len()];
    let mut ranked_in = 0_u32;
    for runs in cells.values() {
        let Some(metric) = runs.by_name.values().next().and_then(|run| metric(run, options)) else {
            continue;
        };
        let value = |name: &String| {
            let run = runs.by_name.get(name)?;
            let metrics = &run.record.outcome.metrics;
            let shown =
                metrics.iter().find(|m| m.name == metric && m.selection == runs.selection)?;
            Some(shown.value).filter(|value| value.is_finite())
        };
        let Some(values) = names.iter().map(value).collect::<Option<Vec<f64>>>() else { continue };
        ranked_in += 1;
        let ranks = ranks(&values, direction(&metric));
        sums.iter_mut().zip(ranks).for_each(|(sum, rank)| *sum += rank);
    }
    // A backbone is shown as in its lines; one without a line has nothing but its name.
    let mut standings: Vec<Standing> = (names.iter().zip(sums))
        .map(|(name, sum)| {
            let untrained = format!("{name} (untrained)");
            let is = |shown: &String| *shown == *name || *shown == untrained;
            let mine = || pairs.iter().filter(|line| is(&line.a) || is(&line.b));
            let shown = mine().next().map(|line| if is(&line.a) { &line.a } else { &line.b });
            let won = |line: &&PairLine| line.better == if is(&line.a) { "a" } else { "b" };
            let ties = mine().filter(|line| line.better == "tie").count();
            let wins = mine().filter(won).count();
            Standing {
                backbone: shown.unwrap_or(name).clone(),
                wins,
                ties,
                losses: mine().count() - wins - ties,
                average_rank: (ranked_in > 0).then(|| sum / f64::from(ranked_in)),
                ranked_in: ranked_in as usize,
            }
        })
        .collect();
    standings.sort_by(|a, b| {
        let rank = |s: &Standing| s.average_rank.unwrap_or(f64::INFINITY);
        rank(a).total_cmp(&rank(b)).then(b.wins.cmp(&a.wins))
    });
    standings
}

pub(super) fn over_seeds(pairs: &[PairLine]) -> Vec<SeedLine> {
    type Key<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);
    let mut groups: BTreeMap<Key<'_>, BTreeMap<u64, f64>> = BTreeMap::new();
    for line in pairs {
        let key = (&*line.a, &*line.b, &*line.task, &*line.protocol, &*line.metric);
        groups.entry(key).or_default().insert(line.seed, line.difference);
    }
    let line = |((a, b, task, protocol, metric), by_seed): (Key<'_>, BTreeMap<u64, f64>)| {
        let differences: Vec<f64> = by_seed.into_values().collect();
        let (mean, sd) = mean_sd(&differences)?;
        let [a, b, task, protocol, metric] = [a, b, task, protocol, metric].map(str::to_owned);
        Some(SeedLine { a, b, task, protocol, metric, seeds: differences.len(), mean, sd: sd? })
    };
    groups.into_iter().filter_map(line).collect()
}
