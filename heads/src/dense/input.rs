use candle_core::{DType, Tensor};
use ops::Format;

use super::HeadError;

/// A head's input from one tap (PROTOCOL section 5): every patch token joined with the mean of the
/// summary tokens.
///
/// `patches` is `[B, N, D]` in row-major order over `grid = (h, w)`, `summary` `[B, S, D]`. The
/// result is `[B, 2D, h, w]`, f32: the first D channels are the patch's own; without a
/// summary `[B, D, h, w]`. It lies in memory in the device's format (see [`ops::Format`]): contiguous on the
/// CPU, and on a GPU with the channels side by side.
///
/// # Errors
/// If the shapes do not fit each other or the grid.
pub fn assemble(
    patches: &Tensor,
    summary: Option<&Tensor>,
    grid: (usize, usize),
) -> Result<Tensor, HeadError> {
    assemble_in(Format::of(patches.device()), patches, summary, grid)
}

pub(super) fn assemble_in(
    format: Format,
    patches: &Tensor,
    summary: Option<&Tensor>,
    grid: (usize, usize),
) -> Result<Tensor, HeadError> {
    let (h, w) = grid;
    let &[batch, tokens, dim] = patches.dims() else {
        return Err(shape("patch tokens", format!("[B, {h}*{w}, D]"), patches));
    };
    if tokens != h * w {
        return Err(shape("patch tokens", format!("[B, {h}*{w}, D]"), patches));
    }
    let mean = match summary {
        Some(summary) => {
            if !matches!(summary.dims(), &[b, s, d] if b == batch && s > 0 && d == dim) {
                return Err(shape("summary tokens", format!("[{batch}, S, {dim}]"), summary));
            }
            Some(summary.to_dtype(DType::F32)?.mean(1)?)
        }
        None => None,
    };
    if format == Format::Pixels {
        let tokens = match mean {
            Some(mean) => ops::join_rows(patches, &mean)?,
            None => patches.to_dtype(DType::F32)?.contiguous()?,
        };
        let width = tokens.dim(2)?;
        return Ok(format.leave(&tokens.reshape((batch, h, w, width))?)?);
    }
    let patches = patches.to_dtype(DType::F32)?.transpose(1, 2)?.reshape((batch, dim, h, w))?;
    let Some(mean) = mean else {
        return Ok(patches.contiguous()?);
    };
    let mean = mean.reshape((batch, dim, 1, 1))?.broadcast_as((batch, dim, h, w))?;
    Ok(Tensor::cat(&[&patches, &mean], 1)?.contiguous()?)
}

/// Taps of several passes as one, in the memory format they have.
///
/// # Errors
/// If they do not have the same channels and grid.
pub fn concatenate(taps: &[Tensor]) -> Result<Tensor, HeadError> {
    match taps {
        [one] => Ok(one.clone()),
        many => {
            let format = many.first().map_or(Format::Planes, |tap| Format::of(tap.device()));
            let many: Vec<Tensor> =
                many.iter().map(|tap| format.enter(tap)).collect::<candle_core::Result<_>>()?;
            Ok(format.leave(&Tensor::cat(&many, 0)?)?)
        }
    }
}

/// The error for a tensor of the wrong shape.
pub(super) fn shape(what: &'static str, expected: String, found: &Tensor) -> HeadError {
    HeadError::Shape { what, expected, found: found.dims().to_vec() }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn patches_come_first_and_the_summary_mean_is_the_same_everywhere() {
        let device = Device::Cpu;
        let patches = Tensor::arange(0_f32, 12.0, &device).unwrap().reshape((1, 6, 2)).unwrap();
        let summary = Tensor::new(&[[[1_f32, 10.0], [3.0, 30.0]]], &device).unwrap();
        let input = assemble(&patches, Some(&summary), (2, 3)).unwrap();
        assert_eq!(input.dims(), [1, 4, 2, 3]);
        let values = input.reshape((4, 6)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(values[0], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(values[1], [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]);
        assert_eq!((values[2].as_slice(), values[3].as_slice()), (&[2.0; 6][..], &[20.0; 6][..]));
        let alone = assemble(&patches, None, (2, 3)).unwrap().reshape((2, 6)).unwrap();
        assert_eq!(alone.to_vec2::<f32>().unwrap(), values[..2]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let fails = |patches: &[usize], summary: &[usize]| {
            assemble(&zeros(patches), Some(&zeros(summary)), (2, 3)).unwrap_err().to_string()
        };
        assert_eq!(
            fails(&[1, 5, 2], &[1, 8, 2]),
            "expected patch tokens of shape [B, 2*3, D], found [1, 5, 2]"
        );
        assert_eq!(
            fails(&[2, 6, 2], &[1, 8, 2]),
            "expected summary tokens of shape [2, S, 2], found [1, 8, 2]"
        );
        assert_eq!(
            fails(&[2, 6, 2], &[2, 0, 2]),
            "expected summary tokens of shape [2, S, 2], found [2, 0, 2]"
        );
    }
}
