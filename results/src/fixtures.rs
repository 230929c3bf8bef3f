//! Made-up runs for tests. No number here was measured.

use std::collections::BTreeMap;

use schema::{
    BackboneRecord, DataRecord, DenseFeatureStage, DenseProtocol, DepthMetrics, DepthRow,
    EpisodeRow, EvaluationStage, FORMAT, FeatureStage, Fingerprint, HeadStage, HostRecord,
    IMAGENET_MEAN, IMAGENET_STD, ImageStage, KPrediction, KnnProtocol, MetricValue, Objective,
    ObservationStage, Outcome, PolicyProtocol, PolicyTask, PolicyTraining, PredictionRow, Protocol,
    Render, RolloutStage, RunPlan, RunRecord, SampleRows, SampleStage, SegmentationRow, Selection,
    SimulatorStage, Source, SplitRecord, Stages, TaskHead, Tokens, TrainingStage, VoteStage,
};

use crate::statistics::Samples;

const K: [usize; 4] = [10, 20, 100, 200];

fn image_stage() -> ImageStage {
    ImageStage {
        revision: 1,
        resize: 256,
        crop: 256,
        filter: "pillow-bicubic".to_owned(),
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    }
}

fn feature_stage() -> FeatureStage {
    FeatureStage {
        revision: 1,
        block: 11,
        tokens: Tokens::SummaryMean,
        class_tokens: None,
        final_norm: false,
        dtype: "f32".to_owned(),
    }
}

pub fn plan(backbone: &str) -> RunPlan {
    let stages = Stages::Knn(KnnProtocol {
        image: image_stage(),
        feature: feature_stage(),
        vote: VoteStage { revision: 1, k: K.to_vec(), temperature: 0.07 },
        limit: None,
    });
    let protocol = Protocol { name: "pixio".to_owned(), stages };
    RunPlan {
        task: TaskHead { dataset: "imagenet1k".to_owned(), head: "knn".to_owned() },
        backbone: BackboneRecord {
            name: backbone.to_owned(),
            source: backbone.to_owned(),
            family: "pixio".to_owned(),
            identity: schema::fingerprint(&backbone),
            revision: None,
            trained: true,
            parameters: 86_000_000,
            blocks: 12,
            width: 768,
            positions: String::new(),
            versions: BTreeMap::new(),
        },
        protocol_fingerprint: protocol.fingerprint(),
        protocol,
        data: DataRecord {
            name: "imagenet1k".to_owned(),
            root: "data/imagenet1k".to_owned(),
            fingerprint: Fingerprint("d".repeat(64)),
            splits: BTreeMap::from([(
                "val".to_owned(),
                SplitRecord { found: 50_000, published: Some(50_000), list: None },
            )]),
            classes: 1000,
            labels: None,
            sample: false,
            container: None,
            accepted: Vec::new(),
        },
        seed: 0,
        head_weights: None,
        stream_seed: None,
        skip_bad_images: false,
        micro_batch: 16,
    }
}

/// `top1@K` and `top5@K` for each K: `first` for the first, a little less for each one after.
pub fn outcome(first: f64) -> Outcome {
    let metrics = K.iter().enumerate().flat_map(|(i, k)| {
        [("top1", 0.0), ("top5", 20.0)].map(|(name, more)| MetricValue {
            name: format!("{name}@{k}"),
            value: first + more - i as f64 / 3.0,
            ci_low: None,
            ci_high: None,
            selection: Selection::Last,
        })
    });
    Outcome {
        metrics: metrics.collect(),
        seconds: BTreeMap::from([("total".to_owned(), 1.5)]),
        images_encoded: 100,
        counts: BTreeMap::new(),
        images_per_second: Some(66.7),
        curve: Vec::new(),
        host: HostRecord {
            version: "0.1.0".to_owned(),
            commit: "unknown".to_owned(),
            device: "cpu".to_owned(),
            cpu: "a processor".to_owned(),
            threads: 2,
        },
        started: "2026-01-01T00:00:00Z".to_owned(),
        finished: "2026-01-01T00:01:00Z".to_owned(),
        skipped_images: Vec::new(),
        warnings: Vec::new(),
    }
}

pub fn record(backbone: &str, first: f64) -> RunRecord {
    RunRecord { format: FORMAT, plan: plan(backbone), outcome: outcome(first) }
}

/// The same run on generated sample data.
pub fn on_sample_data(mut record: RunRecord) -> RunRecord {
    record.plan.protocol.name = "sample".to_owned();
    record.plan.data.sample = true;
    record.plan.data.fingerprint = Fingerprint("5".repeat(64));
    record.plan.data.splits = BTreeMap::from([(
        "val".to_owned(),
        SplitRecord { found: 40, published: None, list: None },
    )]);
    record
}

pub fn untrained(mut record: RunRecord) -> RunRecord {
    record.plan.backbone.trained = false;
    record
}

/// Two trained backbones, an untrained one, and the untrained one on sample data.
pub fn records() -> Vec<RunRecord> {
    vec![
        on_sample_data(untrained(record("random:pixio-nano", 31.25))),
        untrained(record("random:pixio-nano", 1.5)),
        record("pixio-l", 52.125),
        record("pixio-b", 40.0),
    ]
}

/// A trained head on `nyuv2` (depth) or any other data set (segmentation with two named classes).
/// Its best epoch has `first` as rmse or mIoU; the last epoch is a little worse and each metric's
/// own best a little better.
pub fn dense_record(backbone: &str, dataset: &str, head: &str, first: f64) -> RunRecord {
    let depth = dataset == "nyuv2";
    let mut record = record(backbone, 0.0);
    let plan = &mut record.plan;
    plan.task = TaskHead { dataset: dataset.to_owned(), head: head.to_owned() };
    plan.data.name = dataset.to_owned();
    plan.data.fingerprint = schema::fingerprint(&dataset);
    plan.data.splits = BTreeMap::from([(
        "val".to_owned(),
        SplitRecord { found: 654, published: Some(654), list: None },
    )]);
    plan.protocol.stages = Stages::Dense(dense_protocol(depth, head));
    plan.protocol_fingerprint = plan.protocol.fingerprint();

    let values = |worse: f64| match depth {
        true => vec![
            ("delta1", 95.0 - 10.0 * (first + worse)),
            ("delta2", 98.0 - (first + worse)),
            ("delta3", 99.0 - (first + worse)),
            ("abs_rel", (first + worse) / 4.0),
            ("sq_rel", (first + worse) / 8.0),
            ("rmse", first + worse),
            ("rmse_log", (first + worse) / 3.0),
            ("log10", (first + worse) / 9.0),
            ("silog", (first + worse) / 3.5),
        ],
        false => vec![
            ("miou", first - worse),
            ("pixel_acc", 50.0 + first / 2.0 - worse),
            ("iou/wall", first + 10.0 - worse),
            ("iou/flag", first - 10.0 - worse),
        ],
    };
    let selections =
        [(Selection::Last, 0.125), (Selection::Best, 0.0), (Selection::BestEach, -0.0625)];
    let metrics = selections.into_iter().flat_map(|(selection, worse)| {
        // The metric that chooses the epoch is at its own best there.
        let fixed = if selection == Selection::BestEach { values(0.0) } else { values(worse) };
        values(worse).into_iter().zip(fixed).map(move |((name, value), (_, fixed))| MetricValue {
            name: name.to_owned(),
            value: if matches!(name, "rmse" | "miou") { fixed } else { value },
            ci_low: None,
            ci_high: None,
            selection,
        })
    });
    record.outcome.metrics = metrics.collect();
    record
}

fn dense_protocol(depth: bool, head: &str) -> DenseProtocol {
    let dpt = HeadStage::Dpt { revision: 1, channels: [96, 192, 384, 768], features: 256 };
    let linear = head == "linear";
    DenseProtocol {
        sample: SampleStage {
            revision: 1,
            border: depth.then_some([45, 471, 41, 601]),
            scale: (!depth).then_some([0.5, 2.0]),
            crop: 256,
            flip: 0.5,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        },
        feature: DenseFeatureStage {
            revision: 1,
            blocks: if linear { vec![11] } else { vec![2, 5, 8, 11] },
            summary: true,
            class_tokens: None,
            dtype: "f32".to_owned(),
        },
        head: if linear { HeadStage::Linear { revision: 1 } } else { dpt },
        objective: match depth {
            true => Objective::Depth { min: 0.001, max: 10.0 },
            false => Objective::Segmentation { classes: 2, ignore: 255 },
        },
        training: TrainingStage {
            revision: 1,
            epochs: 60,
            groups: 8,
            group_size: 2,
            learning_rate: 1e-4,
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            eps: 1e-8,
            warmup: 0.0,
            power: 0.9,
        },
        evaluation: EvaluationStage {
            revision: 1,
            window: 256,
            stride: 170,
            every: 1,
            min_valid: 10,
        },
        limit: None,
    }
}

/// The same head as it was at the start: only `last`, under a protocol that says so.
pub fn without_epochs(mut record: RunRecord) -> RunRecord {
    record.plan.protocol.name += "+epochs=0";
    if let Stages::Dense(dense) = &mut record.plan.protocol.stages {
        dense.training.epochs = 0;
    }
    record.plan.protocol_fingerprint = record.plan.protocol.fingerprint();
    record.outcome.metrics.retain(|metric| metric.selection == Selection::Last);
    record
}

/// k-NN, depth and segmentation with both heads: two backbones, one of them not on every task.
pub fn mixed_records() -> Vec<RunRecord> {
    vec![
        record("pixio-b", 40.0),
        record("pixio-l", 52.125),
        dense_record("pixio-b", "nyuv2", "linear", 0.5),
        dense_record("pixio-l", "nyuv2", "linear", 0.4375),
        dense_record("pixio-b", "nyuv2", "dpt", 0.375),
        dense_record("pixio-l", "nyuv2", "dpt", 0.3125),
        dense_record("pixio-b", "ade20k", "linear", 36.0),
        dense_record("pixio-l", "ade20k", "linear", 39.5),
        dense_record("pixio-b", "ade20k", "dpt", 44.25),
    ]
}

pub fn depth_rows(count: usize) -> Vec<DepthRow> {
    let metrics = |i: usize| DepthMetrics {
        delta1: 0.5,
        delta2: 0.75,
        delta3: 1.0,
        abs_rel: 0.1 + i as f64,
        sq_rel: 0.2,
        rmse: 1.0 / 3.0,
        rmse_log: 0.25,
        log10: 0.05,
        silog: 0.125,
    };
    (0..count)
        .map(|i| DepthRow { path: format!("test/{i:05}.jpg"), metrics: Some(metrics(i)) })
        .collect()
}

pub fn segmentation_rows(count: u64, classes: u64) -> Vec<SegmentationRow> {
    let counts = |i: u64, more: u64| (0..classes).map(|class| i * class + more).collect();
    (0..count)
        .map(|i| SegmentationRow {
            path: format!("validation/{i:08}.jpg"),
            intersection: counts(i, 0),
            predicted: counts(i, 5),
            target: counts(i, 9),
        })
        .collect()
}

pub fn prediction_rows(count: u32) -> Vec<PredictionRow> {
    let by = |k, predicted| KPrediction { k, predicted, top1: predicted == 1, top5: true };
    (0..count)
        .map(|i| PredictionRow {
            path: format!("val/n{:04}/{i}.png", i % 2),
            label: i % 3,
            by_k: vec![by(10, i % 3), by(20, i % 2)],
        })
        .collect()
}

/// Policies of two tasks on a suite, seeds 100 and 200. At their best evaluations they score `score` on
/// the first task and 10 less on the second; at the last, 4 less on each.
pub fn policy_record(backbone: &str, suite: &str, score: f64) -> RunRecord {
    let mut record = record(backbone, 0.0);
    let plan = &mut record.plan;
    plan.task = TaskHead { dataset: suite.to_owned(), head: "policy".to_owned() };
    plan.data.name = suite.to_owned();
    plan.data.fingerprint = schema::fingerprint(&suite);
    plan.data.splits = BTreeMap::new();
    plan.data.classes = 0;
    plan.protocol = Protocol {
        name: format!("pixio+simulators={suite}-2"),
        stages: Stages::Policy(policy_protocol()),
    };
    plan.protocol_fingerprint = plan.protocol.fingerprint();
    let metrics = [(Selection::Last, 4.0), (Selection::BestEach, 0.0)];
    let metrics = metrics.into_iter().flat_map(|(selection, worse)| {
        let [first, second] = [score - worse, score - 10.0 - worse];
        let named = [("score", (first + second) / 2.0), ("score/drawer-open", first)];
        named.into_iter().chain([("score/assembly", second)]).map(move |(name, value)| {
            let name = name.to_owned();
            MetricValue { name, value, ci_low: None, ci_high: None, selection }
        })
    });
    record.outcome.metrics = metrics.collect();
    record
}

pub fn policy_protocol() -> PolicyProtocol {
    let task = |name: &str| PolicyTask {
        name: name.to_owned(),
        demonstrations: 25,
        epochs: 11,
        evaluations: vec![6, 11],
        episodes: 25,
        horizon: 500,
        goal: false,
    };
    PolicyProtocol {
        image: image_stage(),
        feature: feature_stage(),
        observation: ObservationStage {
            revision: 1,
            source: Source::Images,
            frames: 3,
            proprioception: true,
        },
        training: PolicyTraining {
            revision: 1,
            hidden: vec![256; 3],
            input_norm: Some(0.01),
            rate: 1e-3,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            eps: 1e-8,
            batch: 256,
        },
        rollout: RolloutStage { revision: 1, together: 16 },
        simulator: SimulatorStage {
            versions: vec!["mujoco 3.3.0".to_owned()],
            render: Render { side: 256, shadows: true, reflections: true, samples: 4 },
        },
        tasks: vec![task("drawer-open"), task("assembly")],
        seeds: vec![100, 200],
    }
}

/// Two tasks, seeds 100 and 200, evaluations after epochs 6 and 11, this many episodes each; solved or
/// not, more often on the first task and, but for one policy, at the later evaluation.
pub fn episode_rows(episodes: u32) -> Vec<EpisodeRow> {
    let mut rows = Vec::new();
    for (at, task) in ["drawer-open", "assembly"].into_iter().enumerate() {
        for seed in [100, 200] {
            for epoch in [6, 11] {
                let turned = at == 1 && seed == 200;
                let worse = 1 + at as u32 + u32::from((epoch == 6) != turned);
                rows.extend((0..episodes).map(|episode| {
                    let solved = (episode * 7 + seed as u32 / 100) % 5 >= worse;
                    EpisodeRow {
                        task: task.to_owned(),
                        seed,
                        epoch,
                        episode,
                        score: if solved { 100.0 } else { 0.0 },
                        reward: f64::from(episode) / 4.0,
                        success: Some(solved),
                        steps: 500,
                    }
                }));
            }
        }
    }
    rows
}

/// The metrics that rollouts give.
pub fn policy_metrics(rows: &[EpisodeRow]) -> Vec<MetricValue> {
    let rows = SampleRows::Policy(rows.to_vec());
    let at = |selection| {
        let samples = Samples::at(&rows, selection);
        let named = samples.metrics().map(str::to_owned).zip(samples.values());
        let metric =
            |(name, value)| MetricValue { name, value, ci_low: None, ci_high: None, selection };
        named.map(metric).collect::<Vec<_>>()
    };
    [Selection::Last, Selection::BestEach, Selection::Best].map(at).concat()
}
