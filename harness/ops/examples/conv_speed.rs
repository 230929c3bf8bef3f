//! Milliseconds of image operations, forward, and forward and backward, for a case that a line of the input
//! names: an operation and its integers, as in `scripts/conv_speed.py`, which runs this and PyTorch by turns.
//!
//! `echo "conv2d 4 256 256 64 3 1 1" | cargo run --release -p pixio-eval-ops --example conv_speed`

use std::collections::HashMap;
use std::io::{BufRead, Write, stdin, stdout};
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use pixio_eval_ops::{Format, Images, Tape};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
            ("batch_norm", &[b, c, side]) => vec![vec![b, c, side, side], vec![c], vec![c]],
            _ => bail!("expected one of the operations with its integers, found {line:?}"),
        };
        let inputs: Vec<Var> = shapes
            .iter()
            .map(|shape| Var::from_tensor(&Tensor::randn(0f32, 0.1, &shape[..], &Device::Cpu)?))
            .collect::<Result<_>>()?;
        let gradient = Tensor::zeros((), DType::F32, &Device::Cpu)?;
        let mut case = Self { op, integers, inputs, gradient };
        let (tape, y) = case.forward(false)?;
        case.gradient = tape.leave(&y)?.randn_like(0.0, 1.0)?;
        Ok(case)
    }

    fn forward(&self, record: bool) -> Result<(Tape, Images)> {
        let new = if record { Tape::recording } else { Tape::new };
        let mut tape = new(Format::Planes, DType::F32);
        let x = tape.enter_parameter(&self.inputs[0])?;
        let (n, t) = (&self.integers, &self.inputs[1..]);
        let y = match self.op.as_str() {
            "conv2d" => tape.conv2d(&x, &t[0], Some(&t[1]), n[5], n[6]),
            "conv_transpose2d" => tape.conv_transpose2d(&x, &t[0], Some(&t[1]), n[4]),
            "resize" => tape.resize_bilinear(&x, n[3], n[3]),
            _ => Ok(tape.batch_norm_train(&x, &t[0], &t[1], 1e-5)?.0),
        }?;
        Ok((tape, y))
    }

    /// Milliseconds of the forward pass, and of both passes.
    fn time(&self) -> Result<(f64, f64)> {
        let start = Instant::now();
        std::hint::black_box(self.forward(false)?.1);
        let forward = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        let (tape, y) = self.forward(true)?;
        std::hint::black_box(tape.gradients(&y, &self.gradient)?);
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
