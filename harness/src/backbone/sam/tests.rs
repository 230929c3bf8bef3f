use super::*;

/// Windows are padded from 64 to 70 patches a side at 1024 pixels: 25 of 196 tokens in 8 blocks, 4096 in 4.
#[test]
fn operations_count_padded_windows_and_whole_images() {
    let make = from_transformers(&serde_json::json!({})).unwrap();
    let linear = 12.0 * 4096.0 * (768.0 * 768.0 + 2.0 * 768.0 * 3072.0)
        + (8.0 * 4900.0 + 4.0 * 4096.0) * 3.0 * 768.0 * 768.0;
    let attention = 8.0 * 4900.0 * (2.0 * 196.0 + 28.0) + 4.0 * 4096.0 * (2.0 * 4096.0 + 128.0);
    let embedding = 4096.0 * 768.0 * 768.0;
    let expected = 2.0 * (linear + 768.0 * attention + embedding);
    assert_eq!(make.flops(1024, 1024), Some(expected));
}

#[test]
fn windows_come_back_in_their_places() {
    let x = Tensor::arange(0f32, 2.0 * 5.0 * 7.0 * 3.0, &Device::Cpu).unwrap();
    let x = x.reshape((2, 35, 3)).unwrap();
    for side in [1, 3, 4, 9] {
        let windows = split(&x, (5, 7), side).unwrap();
        let back = join(&windows, 2, (5, 7), side).unwrap();
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&back), values(&x));
        assert_eq!(values(&windows).iter().sum::<f32>(), values(&x).iter().sum::<f32>());
    }
}
