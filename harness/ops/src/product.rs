//! The f32 matrix product that the fused operations are built on.

use gemm::Parallelism;

/// A strided matrix of f32: element `(i, j)` lies `i * row + j * column` elements after `first`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub first: *const f32,
    pub row: usize,
    pub column: usize,
}

impl Matrix {
    /// The transposed matrix.
    pub(crate) fn transposed(self) -> Self {
        Self { first: self.first, row: self.column, column: self.row }
    }
}

/// `to = scale * a b`, or `to += scale * a b` if `accumulate`, on the calling thread, where `a` is
/// `[m, k]`, `b` is `[k, n]`, and row `i` of `to` is the `n` elements at `i * to_row`.
///
/// An element's sum over `k` runs in an order that depends on `k` (and for products no larger than 64 by 64
/// on that), not on its place in the product.
///
/// # Safety
/// `a`, `b` and `to` must be valid for the elements described, nothing else may access those of `to`
/// meanwhile, and they must be initialised if `accumulate`.
pub(crate) unsafe fn product(
    [m, n, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    scale: f32,
    to: *mut f32,
    to_row: usize,
    accumulate: bool,
) {
    // SAFETY: the caller vouches for the three matrices; without `accumulate`, `to` is only written.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to,
            1,
            to_row as isize,
            accumulate,
            a.first,
            a.column as isize,
            a.row as isize,
            b.first,
            b.column as isize,
            b.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
