use std::path::{Path, PathBuf};

/// Images of more pixels are refused before anything is allocated: where Pillow raises its
/// decompression bomb error.
pub const MAX_PIXELS: u64 = 2 * 89_478_485;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG, baseline or progressive, 8 bits.
    Jpeg,
    /// PNG, every colour type and depth.
    Png,
}

impl Format {
    /// The format whose signature `bytes` begin with.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else {
            None
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
        })
    }
}

/// Why a file did not become pixels.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The content is no image that is known.
    #[error("{}: expected a JPEG or PNG image, found {found}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        found: String,
    },
    /// An image, but of a format or variant that is not read.
    #[error("{}: expected a JPEG or PNG image of a supported kind, found {found}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The data ends before the image does.
    #[error("{}: truncated {format} image: {bytes} bytes end {at}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// Its size.
        bytes: usize,
        /// Where the data ends, for example `in row 17 of 300`.
        at: String,
    },
    /// The data contradicts its format.
    #[error("{}: corrupt {format} image: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// What the decoder said.
        reason: String,
    },
    /// More than [`MAX_PIXELS`].
    #[error(
        "{}: expected an image of at most {MAX_PIXELS} pixels, found {width}x{height}",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A valid image whose channels or depth are not the ones asked for.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        expected: &'static str,
        /// What the file holds.
        found: String,
    },
}

impl ImageError {
    /// The file that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::NotAnImage { path, .. }
            | Self::Unsupported { path, .. }
            | Self::Truncated { path, .. }
            | Self::Corrupt { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Layout { path, .. } => path,
        }
    }

    /// For content that has neither signature.
    pub(super) fn unrecognised(bytes: &[u8], path: &Path) -> Self {
        let path = path.to_owned();
        match known_format(bytes) {
            Some(found) => Self::Unsupported { path, found: found.to_owned() },
            None => Self::NotAnImage { path, found: looks_like(bytes) },
        }
    }

    pub(super) fn check_size(width: u32, height: u32, path: &Path) -> Result<(), Self> {
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(Self::TooLarge { path: path.to_owned(), width, height });
        }
        Ok(())
    }
}

fn known_format(bytes: &[u8]) -> Option<&'static str> {
    let brand = bytes.get(4..12).unwrap_or_default();
    Some(match bytes {
        [b'G', b'I', b'F', b'8', ..] => "a GIF image",
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => "a BMP image",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF image",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "a WebP image",
        _ if brand == b"ftypavif" => "an AVIF image",
        _ if brand == b"ftypheic" => "a HEIC image",
        _ if brand == b"jP  \r\n\x87\n" => "a JPEG 2000 image",
        _ => return None,
    })
}

fn looks_like(bytes: &[u8]) -> String {
    let head = bytes.get(..16).unwrap_or(bytes);
    if head.is_empty() {
        return "an empty file".to_owned();
    }
    if head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        return format!("text beginning {:?}", String::from_utf8_lossy(head));
    }
    let hex: Vec<String> = head.iter().map(|b| format!("{b:02x}")).collect();
    format!("bytes beginning {}", hex.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        ImageError::unrecognised(bytes, Path::new("a/b.jpg")).to_string()
    }

    #[test]
    fn messages_name_the_file_and_what_it_looks_like() {
        assert_eq!(message(b""), "a/b.jpg: expected a JPEG or PNG image, found an empty file");
        assert_eq!(
            message(b"<html><body>404</body>"),
            "a/b.jpg: expected a JPEG or PNG image, found text beginning \"<html><body>404<\""
        );
        assert_eq!(
            message(b"\x00\x01\xff"),
            "a/b.jpg: expected a JPEG or PNG image, found bytes beginning 00 01 ff"
        );
        assert_eq!(
            message(b"GIF89a..."),
            "a/b.jpg: expected a JPEG or PNG image of a supported kind, found a GIF image"
        );
    }
}
