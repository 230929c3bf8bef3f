//! Milliseconds of image operations, forward, and forward and backward, for a case that a line of the input
//! names: an operation and its integers, as in `scripts/conv_speed.py`, which runs this and PyTorch by turns.
//!
//! `echo "conv2d 4 256 256 64 3 1 1" | cargo run --release -p pixio-eval-ops --example conv_speed`

use std::collections::HashMap;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::Instant;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, Var, bail};
use pixio_eval_ops as ops;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A loss whose gradient is given.
struct Loss(Tensor);

impl CustomOp1 for Loss {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

struct Case {
    op: String,
    integers: Vec<usize>,
    inputs: Vec<Var>,
    gradient: Tensor,
}

impl Case {
    fn new(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let op = words.next().unwrap_or_default().to_owned();
        let Ok(integers) = words.map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()
        else {
            bail!("expected an operation and integers, found {line:?}");
        };
        let shapes: Vec<Vec<usize>> = match (op.as_str(), &integers[..]) {
            ("conv2d", &[b, c, o, side, k, _, _]) => {
                vec![vec![b, c, side, side], vec![o, c, k, k], vec![o]]
            }
            ("conv_transpose2d", &[b, c, o, side, k]) => {
                vec![vec![b, c, side, side], vec![c, o, k, k], vec![o]]
            }
            ("resize", &[b, c, side, _]) => vec![vec![b, c, side, side]],
            ("relu", &[b, c, side]) => vec![vec![b, c, side, side]],
            ("batch_norm", &[b, c, side]) => vec![vec![b, c, side, side], vec![c], vec![c]],
            _ => bail!("expected one of the operations with its integers, found {line:?}"),
        };
        let inputs: Vec<Var> = shapes
            .iter()
            .map(|shape| Var::from_tensor(&Tensor::randn(0f32, 0.1, &shape[..], &Device::Cpu)?))
            .collect::<Result<_>>()?;
        let mut case = Self {
            op,
            integers,
            inputs,
            gradient: Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?,
        };
        case.gradient = case.forward(false)?.randn_like(0.0, 1.0)?;
        Ok(case)
    }

    fn forward(&self, tracked: bool) -> Result<Tensor> {
        let input = |i: usize| match tracked {
            true => self.inputs[i].as_tensor().clone(),
            false => self.inputs[i].as_detached_tensor(),
        };
        let n = &self.integers;
        match self.op.as_str() {
            "conv2d" => ops::conv2d(&input(0), &input(1), Some(&input(2)), n[5], n[6]),
            "conv_transpose2d" => {
                ops::conv_transpose2d(&input(0), &input(1), Some(&input(2)), n[4])
            }
            "resize" => ops::resize_bilinear(&input(0), n[3], n[3]),
            "relu" => ops::relu(&input(0)),
            _ => Ok(ops::batch_norm_train(&input(0), &input(1), &input(2), 1e-5)?.0),
        }
    }

    /// Milliseconds of the forward pass, and of both passes.
    fn time(&self) -> Result<(f64, f64)> {
        let start = Instant::now();
        std::hint::black_box(self.forward(false)?);
        let forward = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        let loss = self.forward(true)?.apply_op1(Loss(self.gradient.clone()))?;
        std::hint::black_box(loss.backward()?);
        Ok((forward, start.elapsed().as_secs_f64() * 1e3))
    }
}

fn main() -> Result<()> {
    let mut cases = HashMap::new();
    for line in stdin().lock().lines() {
        let line = line?;
        if !cases.contains_key(&line) {
            // One case at a time: the tensors are large.
            cases.clear();
            cases.insert(line.clone(), Case::new(&line)?);
        }
        let (forward, both) = cases[&line].time()?;
        println!("{forward} {both}");
        stdout().flush()?;
    }
    Ok(())
}
