use crate::error::Fault;

/// The bytes of a pickle, read from the front.
pub(crate) struct Input<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where the next one stands.
    pub(crate) at: usize,
}

impl<'a> Input<'a> {
    /// Bytes that are still to be read.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn take(&mut self, wanted: u64) -> Result<&'a [u8], Fault> {
        let left = &self.bytes[self.at..];
        let taken = usize::try_from(wanted).ok().and_then(|n| left.get(..n));
        let taken = taken.ok_or(Fault::Truncated { wanted, left: left.len() })?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// An unsigned little-endian number of `N` bytes, at most eight.
    pub(crate) fn number<const N: usize>(&mut self) -> Result<u64, Fault> {
        let bytes = self.array::<N>()?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Bytes after their length, a number of `N` bytes.
    pub(crate) fn sized<const N: usize>(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.number::<N>()?;
        self.take(length)
    }

    /// Text up to the end of a line.
    pub(crate) fn line(&mut self) -> Result<&'a str, Fault> {
        let left = &self.bytes[self.at..];
        let end = left.iter().position(|byte| *byte == b'\n');
        let end =
            end.ok_or(Fault::Truncated { wanted: left.len() as u64 + 1, left: left.len() })?;
        self.at += end + 1;
        str::from_utf8(&left[..end]).map_err(|_| Fault::Utf8)
    }
}
