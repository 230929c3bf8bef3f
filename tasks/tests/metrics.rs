//! Segmentation scores against what the authors' code computes on label maps with ignored pixels and
//! absent classes.

use ndarray::ArrayView3;
use pixio_eval_tasks::metrics::ClassCounts;
use safetensors::SafeTensors;

#[derive(serde::Deserialize)]
struct Golden {
    nclass: usize,
    intersection: Vec<u64>,
    union: Vec<u64>,
    miou: f64,
}

#[test]
fn label_maps_score_as_the_authors_score_them() {
    let golden: Golden =
        serde_json::from_str(include_str!("data/metrics/label_maps.json")).unwrap();
    let file = SafeTensors::deserialize(include_bytes!("data/metrics/label_maps.safetensors"));
    let file = file.unwrap();
    let maps = |name: &str| file.tensor(&format!("label_maps.{name}")).unwrap();
    let (prediction, target) = (maps("prediction"), maps("target"));
    let shape: [usize; 3] = prediction.shape().try_into().unwrap();
    let prediction = ArrayView3::from_shape(shape, prediction.data()).unwrap();
    let target = ArrayView3::from_shape(shape, target.data()).unwrap();
    let mut whole = ClassCounts::new(golden.nclass);
    for (prediction, target) in prediction.outer_iter().zip(target.outer_iter()) {
        whole.add(&ClassCounts::of(prediction, target, golden.nclass, 255).unwrap());
    }
    assert_eq!(whole.intersection, golden.intersection);
    assert_eq!(whole.union().collect::<Vec<_>>(), golden.union);
    assert!((whole.miou() - golden.miou).abs() < 1e-9, "{} {}", whole.miou(), golden.miou);
}
