//! What the first bytes of an image file tell.

use crate::image::Format;

/// What a file says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Channels of colour, without alpha; a palette counts as one.
    pub channels: u8,
    /// Bits of a channel.
    pub bits: u8,
}

impl Header {
    /// Of a file's bytes; `None` where it cannot be told.
    pub fn parse(head: &[u8]) -> Option<Self> {
        match Format::of(head)? {
            Format::Png => {
                let (bits, colour) = (*head.get(24)?, *head.get(25)?);
                let channels = if matches!(colour, 2 | 6) { 3 } else { 1 };
                Some(Self { channels, bits })
            }
            Format::Jpeg => jpeg(head),
        }
    }
}

/// The frame header, which stands behind segments that say how long they are.
fn jpeg(head: &[u8]) -> Option<Header> {
    let mut at = 2;
    loop {
        let [0xff, marker] = *head.get(at..at + 2)? else { return None };
        match marker {
            0xff => at += 1,
            0x01 | 0xd0..=0xd7 => at += 2,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let (bits, channels) = (*head.get(at + 4)?, *head.get(at + 9)?);
                return Some(Header { channels, bits });
            }
            _ => {
                let length = head.get(at + 2..at + 4)?;
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]).max(2));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_bits_are_told_or_not() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01".to_vec();
        assert_eq!(Header::parse(&png), None);
        png.extend([16, 0]);
        assert_eq!(Header::parse(&png), Some(Header { channels: 1, bits: 16 }));
        let segment = [0xff, 0xe1, 0, 4, 7, 7];
        let frame = [0xff, 0xc2, 0, 17, 8, 0, 1, 0, 1, 4];
        let jpeg = [&[0xff, 0xd8][..], &segment, &[0xff], &frame].concat();
        assert_eq!(Header::parse(&jpeg), Some(Header { channels: 4, bits: 8 }));
        for cut in 0..jpeg.len() {
            assert_eq!(Header::parse(&jpeg[..cut]), None, "{cut}");
        }
        assert_eq!(Header::parse(b"\xff\xd8\xff\xe0\0\0"), None);
    }
}
