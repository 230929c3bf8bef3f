//! Loss and gradients of a saved head: `dense_gradients dpt|linear FOLDER` reads `head.safetensors`
//! and `inputs.safetensors` (`tap.N` and `depth`) and writes `gradients.safetensors`, with `loss`
//! among the parameters' names. `harness/scripts/dense_gradients.py` compares them with PyTorch's.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, safetensors};
use heads::dense::{Expected, HeadKind, Targets, decode, from_tensors, loss};
use schema::Objective;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (kind, folder) = match args.as_slice() {
        [kind, folder] if kind == "dpt" => (HeadKind::Dpt, Path::new(folder)),
        [kind, folder] if kind == "linear" => (HeadKind::Linear, Path::new(folder)),
        _ => return Err("usage: dense_gradients dpt|linear FOLDER".into()),
    };
    let device = Device::Cpu;
    let mut inputs = safetensors::load(folder.join("inputs.safetensors"), &device)?;
    let mut taps = Vec::new();
    while let Some(tap) = inputs.remove(&format!("tap.{}", taps.len())) {
        taps.push(tap);
    }
    let width = taps.first().ok_or("no tap.0")?.dim(1)?;
    let depth = inputs.remove("depth").ok_or("no depth")?;

    let file = folder.join("head.safetensors");
    let tensors = decode(&std::fs::read(&file)?)?;
    let expected = Expected { kind, width, outputs: 1 };
    let head = from_tensors(&file, tensors, expected, DType::F32, &device)?;
    let forward = head.forward(&taps, true)?;
    let objective = Objective::Depth { min: 0.001, max: 10.0 };
    let loss = loss(&forward.logits, &Targets::depth(depth), &objective, 1)?;
    let value = loss.value.clone().ok_or("no valid pixel")?;
    let gradients = forward.gradients(&loss.gradient(1.0)?.ok_or("no valid pixel")?)?;

    let mut found: HashMap<String, Tensor> = HashMap::from([("loss".to_owned(), value)]);
    for parameter in head.parameters() {
        if let Some(gradient) = gradients.of(&parameter.var) {
            found.insert(parameter.name.clone(), gradient.contiguous()?);
        }
    }
    safetensors::save(&found, folder.join("gradients.safetensors"))?;
    Ok(())
}
