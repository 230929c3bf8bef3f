//! Values of a page: runs of small numbers, plain byte arrays and integers.

use std::rc::Rc;

/// Bytes of the longest text that is taken.
const LONGEST: usize = 4096;

/// `n` numbers of `width` bits in the hybrid of runs and bit packing. None: damaged, or too few.
pub(super) fn hybrid(mut bytes: &[u8], width: u32, n: usize) -> Option<Vec<u32>> {
    if width > 32 {
        return None;
    }
    let mut numbers = Vec::with_capacity(n);
    while numbers.len() < n {
        if width == 0 && bytes.is_empty() {
            numbers.resize(n, 0);
            break;
        }
        let header = varint(&mut bytes)?;
        let left = n - numbers.len();
        let count = usize::try_from(header >> 1).ok()?;
        if header & 1 == 0 {
            let long = width.div_ceil(8) as usize;
            let value = bytes.get(..long)?.iter().rev().fold(0_u32, |v, &b| v << 8 | u32::from(b));
            bytes = &bytes[long..];
            if count == 0 {
                return None;
            }
            numbers.resize(numbers.len() + count.min(left), value);
        } else {
            let long = count.checked_mul(width as usize)?;
            // The last group may lack its padding.
            let packed = bytes.get(..long.min(bytes.len()))?;
            bytes = &bytes[packed.len()..];
            if count == 0 {
                return None;
            }
            for i in 0..count.saturating_mul(8).min(left) {
                numbers.push(bits(packed, i * width as usize, width)?);
            }
        }
    }
    Some(numbers)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// `width` bits from bit `at` on, the lowest first.
fn bits(bytes: &[u8], at: usize, width: u32) -> Option<u32> {
    let end = (at + width as usize).div_ceil(8);
    let held = bytes.get(at / 8..end)?;
    let number = held.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    Some((number >> (at % 8) & ((1 << width) - 1)) as u32)
}

/// `n` texts, each after its length in four bytes. Not UTF-8 and overlong ones are damage.
pub(super) fn texts(mut bytes: &[u8], n: usize) -> Option<Vec<Rc<str>>> {
    let mut texts = Vec::new();
    for _ in 0..n {
        let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        if len > LONGEST {
            return None;
        }
        texts.push(std::str::from_utf8(bytes.get(4..4 + len)?).ok()?.into());
        bytes = &bytes[4 + len..];
    }
    Some(texts)
}

/// `n` integers of eight bytes.
pub(super) fn integers(bytes: &[u8], n: usize) -> Option<Vec<i64>> {
    let whole = bytes.get(..n.checked_mul(8)?)?.chunks_exact(8);
    whole.map(|chunk| chunk.try_into().ok().map(i64::from_le_bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_runs_or_packed_bits() {
        // A run of five threes, then eight numbers of three bits: 0 to 7.
        let bytes = [10, 3, 3, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        let numbers = hybrid(&bytes, 3, 13).unwrap();
        assert_eq!(numbers, [3, 3, 3, 3, 3, 0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(hybrid(&bytes, 3, 7).unwrap(), numbers[..7]);
        assert_eq!(hybrid(&bytes, 3, 14), None);
        assert_eq!(hybrid(&[], 0, 3).unwrap(), [0, 0, 0]);
        assert_eq!(hybrid(&[0, 0], 3, 1), None);
        assert_eq!(hybrid(&[2, 1], 33, 1), None);
        assert_eq!(hybrid(&[4, 0xff, 0xff, 0xff, 0xff], 32, 2).unwrap(), [u32::MAX, u32::MAX]);
    }
}
