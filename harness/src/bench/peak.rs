//! What a device could do at most.

use candle_core::{DType, Device};

use crate::device;

/// Dense peaks without sparsity in TFLOPS by a part of the GPU's name, from the makers' data sheets: of bf16 and f16
/// products with f32 sums, and of f32 without TF32. The first that matches counts.
const PEAKS: &[(&str, f64, f64)] = &[
    ("B200", 2250.0, 80.0),
    ("H200 NVL", 836.0, 60.0),
    ("H200", 989.0, 67.0),
    ("GH200", 989.0, 67.0),
    ("H100 NVL", 836.0, 60.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100", 989.0, 67.0),
    ("A100", 312.0, 19.5),
    ("A40", 149.7, 37.4),
    ("A10", 125.0, 31.2),
    ("L40S", 362.0, 91.6),
    ("L40", 181.0, 90.5),
    ("L4", 121.0, 30.3),
    ("RTX 6000 Ada", 364.0, 91.1),
    ("RTX A6000", 154.8, 38.7),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71.0, 35.6),
];

/// The GPU's or the processor's model.
pub(super) fn hardware(device: &Device) -> String {
    #[cfg(feature = "cuda")]
    if let Ok(gpu) = device.as_cuda_device() {
        return gpu.cuda_stream().context().name().unwrap_or_else(|_| "GPU".to_owned());
    }
    let _ = device;
    device::cpu_model()
}

/// Peak of a GPU of that name, TFLOPS, if it is known.
pub(super) fn peak(hardware: &str, dtype: DType) -> Option<f64> {
    let whole = |part: &str| {
        let words = |text: &str| text.split([' ', '-']).map(str::to_owned).collect::<Vec<_>>();
        let (name, part) = (words(hardware), words(part));
        name.windows(part.len()).any(|words| words == part)
    };
    let (_, half, single) = PEAKS.iter().find(|(part, ..)| whole(part))?;
    match dtype {
        DType::BF16 | DType::F16 => Some(*half),
        DType::F32 => Some(*single),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_known_by_whole_words_of_their_names() {
        let half = |name| peak(name, DType::BF16);
        assert_eq!(half("NVIDIA H200"), Some(989.0));
        assert_eq!(half("NVIDIA H200 NVL"), Some(836.0));
        assert_eq!(half("NVIDIA H100 80GB HBM3"), Some(989.0));
        assert_eq!(half("NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(half("NVIDIA A100-SXM4-80GB"), Some(312.0));
        assert_eq!(half("NVIDIA A10G"), None);
        assert_eq!(half("NVIDIA L40S"), Some(362.0));
        assert_eq!(half("NVIDIA L4"), Some(121.0));
        assert_eq!(half("Tesla V100"), None);
        assert_eq!(peak("NVIDIA H200", DType::F32), Some(67.0));
    }
}
