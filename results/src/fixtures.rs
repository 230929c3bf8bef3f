//! Made-up runs for tests. No number here was measured.

use std::collections::BTreeMap;

use schema::{
    BackboneRecord, DataRecord, FORMAT, FeatureStage, Fingerprint, HostRecord, IMAGENET_MEAN,
    IMAGENET_STD, ImageStage, KPrediction, KnnProtocol, MetricValue, Outcome, PredictionRow,
    Protocol, RunPlan, RunRecord, Selection, SplitRecord, Stages, TaskHead, Tokens, VoteStage,
};

const K: [usize; 4] = [10, 20, 100, 200];

pub fn plan(backbone: &str) -> RunPlan {
    let stages = Stages::Knn(KnnProtocol {
        image: ImageStage {
            revision: 1,
            resize: 256,
            crop: 256,
            filter: "pillow-bicubic".to_owned(),
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        },
        feature: FeatureStage {
            revision: 1,
            block: 11,
            tokens: Tokens::SummaryMean,
            final_norm: false,
            dtype: "f32".to_owned(),
        },
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
        },
        protocol_fingerprint: protocol.fingerprint(),
        protocol,
        data: DataRecord {
            name: "imagenet1k".to_owned(),
            root: "data/imagenet1k".to_owned(),
            fingerprint: Fingerprint("d".repeat(64)),
            splits: BTreeMap::from([(
                "val".to_owned(),
                SplitRecord { found: 50_000, published: Some(50_000) },
            )]),
            classes: 1000,
            sample: false,
        },
        seed: 0,
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
        images_per_second: Some(66.7),
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
    record.plan.data.splits =
        BTreeMap::from([("val".to_owned(), SplitRecord { found: 40, published: None })]);
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
