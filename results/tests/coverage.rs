//! How often a 95% interval holds the truth, in simulated data sets whose truth is known.
#![allow(clippy::unwrap_used)]

use pixio_eval_results::statistics::{Samples, estimates};
use schema::random::Stream;
use schema::{DepthMetrics, DepthRow, EpisodeRow, SampleRows, SegmentationRow, Selection};

/// Images that stand for the whole population.
const POPULATION: u32 = 200_000;

/// Draws that follow each other.
struct Draws {
    stream: Stream,
    next: u32,
}

impl Draws {
    fn new(seed: u64) -> Self {
        Self { stream: Stream::tagged(seed, "coverage"), next: 0 }
    }

    fn uniform(&mut self) -> f64 {
        self.next += 1;
        self.stream.uniform([self.next, 0, 0, 0])
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// A kind of data set that images can be drawn from without end.
trait World {
    const METRIC: &'static str;
    /// The metric of the whole population.
    fn truth(&self) -> f64;
    fn rows(&self, images: u32, draws: &mut Draws) -> SampleRows;
}

/// Skewed errors, as the rmse of depth images.
struct Errors;

impl World for Errors {
    const METRIC: &'static str = "rmse";

    fn truth(&self) -> f64 {
        (0.6_f64.powi(2) / 2.0).exp()
    }

    fn rows(&self, images: u32, draws: &mut Draws) -> SampleRows {
        let row = |i: u32| DepthRow {
            path: i.to_string(),
            metrics: Some(DepthMetrics {
                rmse: (0.6 * draws.normal()).exp(),
                ..DepthMetrics::default()
            }),
        };
        SampleRows::Depth((0..images).map(row).collect())
    }
}

/// Classes of falling frequency (Zipf); an image shows some of them, in pieces of any size, and each
/// class is recognised to a degree of its own that varies by image.
struct Scenes {
    present: Vec<f64>,
    degree: Vec<f64>,
}

impl Scenes {
    fn new(classes: usize, fall: f64, an_image: f64) -> Self {
        let mut draws = Draws::new(1);
        let weights: Vec<f64> = (1..=classes).map(|rank| (rank as f64).powf(-fall)).collect();
        let total: f64 = weights.iter().sum();
        Self {
            present: weights.iter().map(|weight| (an_image * weight / total).min(0.98)).collect(),
            degree: (0..classes).map(|_| 0.2 + 0.75 * draws.uniform()).collect(),
        }
    }
}

impl World for Scenes {
    const METRIC: &'static str = "miou";

    fn truth(&self) -> f64 {
        let mut draws = Draws::new(2);
        let none = || vec![0; self.present.len()];
        let mut whole = SegmentationRow {
            path: String::new(),
            intersection: none(),
            predicted: none(),
            target: none(),
        };
        for _ in 0..POPULATION / 1000 {
            let SampleRows::Segmentation(rows) = self.rows(1000, &mut draws) else { continue };
            for row in rows {
                let counts = [
                    (&mut whole.intersection, row.intersection),
                    (&mut whole.predicted, row.predicted),
                    (&mut whole.target, row.target),
                ];
                for (sum, more) in counts {
                    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                }
            }
        }
        Samples::new(&SampleRows::Segmentation(vec![whole])).values()[0]
    }

    fn rows(&self, images: u32, draws: &mut Draws) -> SampleRows {
        let classes = self.present.len();
        let mut rows = Vec::new();
        for i in 0..images {
            let ease = 0.15 * draws.normal();
            let (mut target, mut intersection) = (vec![0; classes], vec![0; classes]);
            let mut lost = 0;
            for (class, (present, degree)) in self.present.iter().zip(&self.degree).enumerate() {
                if draws.uniform() >= *present {
                    continue;
                }
                target[class] = (1000.0 * draws.normal().exp()) as u64;
                let right = (degree + ease + 0.2 * draws.normal()).clamp(0.0, 1.0);
                intersection[class] = (target[class] as f64 * right) as u64;
                lost += target[class] - intersection[class];
            }
            // What is missed is taken for another class, more often for a frequent one.
            let mut predicted = intersection.clone();
            predicted[(draws.uniform().powi(2) * classes as f64) as usize] += lost;
            let path = i.to_string();
            rows.push(SegmentationRow { path, intersection, predicted, target });
        }
        SampleRows::Segmentation(rows)
    }
}

/// Percent of simulated data sets whose interval holds the population's value.
fn coverage<W: World>(world: &W, images: u32, data_sets: u64) -> f64 {
    let truth = world.truth();
    let holds = |seed: &u64| {
        let rows = world.rows(images, &mut Draws::new(1000 + seed));
        let estimates = estimates(&Samples::new(&rows));
        let found = estimates.into_iter().find(|found| found.metric == W::METRIC).unwrap();
        let interval = found.interval.unwrap();
        interval.low <= truth && truth <= interval.high
    };
    100.0 * (0..data_sets).filter(holds).count() as f64 / data_sets as f64
}

/// 200 data sets: three standard deviations around 95% are 90.4% to 99.6%.
#[test]
fn intervals_hold_the_truth_about_as_often_as_they_say() {
    let around = |what: &str, found: f64| {
        assert!((90.4..=99.6).contains(&found), "{what}: {found}%");
    };
    around("mean", coverage(&Errors, 100, 200));
    around("7 classes", coverage(&Scenes::new(7, 0.5, 4.0), 100, 200));
    around("40 classes", coverage(&Scenes::new(40, 0.8, 6.0), 300, 200));
    // 100 data sets: three standard deviations are 6.5%.
    let many = coverage(&Scenes::new(150, 1.0, 9.0), 2000, 100);
    assert!((88.5..=100.0).contains(&many), "150 classes: {many}%");
}

/// The figures in the documentation of `statistics`.
#[test]
#[ignore = "takes minutes; run with --ignored --nocapture"]
fn coverage_at_the_sizes_of_the_benchmark() {
    let mut figures = Vec::new();
    let mut tell = |what: &str, found: f64| {
        println!("{what}: {found:.1}%");
        figures.push(found);
    };
    tell("mean of skewed errors, 654 images", coverage(&Errors, 654, 1000));
    tell("mIoU, 7 classes, 1669 images", coverage(&Scenes::new(7, 0.5, 4.0), 1669, 1000));
    tell("mIoU, 21 classes, 1449 images", coverage(&Scenes::new(21, 0.5, 2.5), 1449, 1000));
    tell("mIoU, 150 classes, 2000 images", coverage(&Scenes::new(150, 1.0, 9.0), 2000, 1000));
    tell(
        "mIoU, 150 very skewed classes, 2000 images",
        coverage(&Scenes::new(150, 1.4, 9.0), 2000, 1000),
    );
    assert!(figures.iter().all(|found| (93.0..=97.0).contains(found)), "{figures:?}");
}

/// Policies of a suite: five tasks, three seeds. An episode is solved with a chance that is the task's,
/// a little the policy's, and the start's, which seeds share where `shared` is set.
struct Suite {
    shared: bool,
}

impl Suite {
    const TASKS: u32 = 5;
    const SEEDS: u64 = 3;

    fn chance(task: u32, seed: u64, start: f64) -> f64 {
        let of_policy = 0.05 * (seed as f64 - 1.0) * f64::from(task % 2);
        (0.15 + 0.18 * f64::from(task) + of_policy + 0.6 * (start - 0.5)).clamp(0.0, 1.0)
    }

    /// One evaluation of `episodes` each.
    fn evaluation(&self, epoch: u32, episodes: u32, draws: &mut Draws) -> Vec<EpisodeRow> {
        let mut rows = Vec::new();
        for task in 0..Self::TASKS {
            for episode in 0..episodes {
                let mut start = draws.uniform();
                for seed in 0..Self::SEEDS {
                    if !self.shared {
                        start = draws.uniform();
                    }
                    let solved = draws.uniform() < Self::chance(task, seed, start);
                    rows.push(EpisodeRow {
                        task: task.to_string(),
                        seed,
                        epoch,
                        episode,
                        score: if solved { 100.0 } else { 0.0 },
                        reward: 0.0,
                        success: Some(solved),
                        steps: 0,
                    });
                }
            }
        }
        rows
    }
}

impl World for Suite {
    const METRIC: &'static str = "score";

    fn truth(&self) -> f64 {
        let mut total = 0.0;
        for task in 0..Self::TASKS {
            for seed in 0..Self::SEEDS {
                let chance = |i| Self::chance(task, seed, (f64::from(i) + 0.5) / 10_000.0);
                total += (0..10_000).map(chance).sum::<f64>() / 10_000.0;
            }
        }
        100.0 * total / f64::from(Self::TASKS) / Self::SEEDS as f64
    }

    /// `images` are the episodes of one policy.
    fn rows(&self, images: u32, draws: &mut Draws) -> SampleRows {
        SampleRows::Policy(self.evaluation(1, images, draws))
    }
}

#[test]
fn intervals_of_policies_hold_the_truth_about_as_often_as_they_say() {
    for shared in [false, true] {
        let found = coverage(&Suite { shared }, 25, 200);
        assert!((90.4..=99.6).contains(&found), "shared starts {shared}: {found}%");
    }
}

/// Why tables say that the choice of the evaluation is not in the interval: policies that do not change
/// over twenty evaluations of 25 episodes look better at their best by this much.
#[test]
fn the_best_of_twenty_evaluations_is_above_the_truth() {
    let suite = Suite { shared: false };
    let (truth, sets) = (suite.truth(), 20);
    let mut above = 0.0;
    for set in 0..sets {
        let mut draws = Draws::new(5000 + set);
        let rows = (1..=20).flat_map(|epoch| suite.evaluation(epoch, 25, &mut draws)).collect();
        let best = Samples::at(&SampleRows::Policy(rows), Selection::BestEach).values()[0];
        above += (best - truth) / sets as f64;
    }
    println!("best of twenty evaluations: {above:+.1}");
    assert!((10.0..=18.0).contains(&above), "{above}");
}

/// The figures of policies in the documentation of `statistics`.
#[test]
#[ignore = "takes minutes; run with --ignored --nocapture"]
fn coverage_of_policies() {
    for (what, shared, episodes) in [
        ("5 tasks, 3 seeds, 25 episodes", false, 25),
        ("the same, starts alike for all seeds", true, 25),
        ("the same, 10 episodes", true, 10),
    ] {
        let found = coverage(&Suite { shared }, episodes, 1000);
        println!("score, {what}: {found:.1}%");
        assert!((91.0..=97.0).contains(&found), "{what}: {found}");
    }
}
