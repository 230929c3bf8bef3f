//! Rotary position embedding.

use candle_core::{Result, Tensor, bail};

use crate::compose;

/// The query, key and value of a packed projection, the first two rotated (rotary position embedding, Su et
/// al., arXiv 2104.09864), ready for [`attention_qkv`](crate::attention_qkv).
///
/// `qkv` is `[B, N, 3 * D]` as for [`attention`](crate::attention()); `cos` and `sin` are f32
/// `[N, D / heads]`. The two halves of a head are the two coordinates of each plane. The results are
/// `[B, heads, N, D / heads]` of any strides, in the dtype of `qkv`; the rotation is computed in f32.
///
/// # Errors
/// If the shapes do not fit, or a head is of odd size.
pub fn rotate_heads(qkv: &Tensor, heads: usize, cos: &Tensor, sin: &Tensor) -> Result<[Tensor; 3]> {
    let &[batch, tokens, width] = qkv.dims() else {
        bail!("rotate_heads: expected qkv [B, N, 3 * D], found {:?}", qkv.dims());
    };
    if heads == 0 || !width.is_multiple_of(6 * heads) {
        bail!(
            "rotate_heads: expected a last dimension that is a multiple of 3 x {heads} heads of even size, \
             found {:?}",
            qkv.dims()
        );
    }
    let depth = width / (3 * heads);
    if cos.dims() != [tokens, depth] || sin.dims() != [tokens, depth] {
        bail!(
            "rotate_heads: expected cosines and sines [{tokens}, {depth}], found {:?} and {:?}",
            cos.dims(),
            sin.dims()
        );
    }
    let part = |packed: &Tensor, i: usize| packed.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
    let parts = qkv.reshape((batch, tokens, 3, heads, depth))?;
    #[cfg(feature = "cuda")]
    if let Some(turned) = crate::cuda::tokens::rotate(qkv, heads, cos, sin)? {
        return Ok([part(&turned, 0)?, part(&turned, 1)?, part(&parts, 2)?]);
    }
    let turned = |i| compose::rotate(&part(&parts, i)?, cos, sin);
    Ok([turned(0)?, turned(1)?, part(&parts, 2)?])
}
