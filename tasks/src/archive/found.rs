//! What listing an archive finds.

use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Fault, Problem};

/// The largest member that is read, in bytes unpacked.
pub(super) const LARGEST: u64 = 1 << 30;

/// How a member's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// As they are, at the offset.
    Plain,
    /// In a zip archive as they are; the offset is that of the local header.
    ZipStored,
    /// In a zip archive, deflated; the offset is that of the local header.
    ZipDeflated,
    /// In a Snappy stream; the offset is that of an element from which it can be unpacked.
    Snappy,
    /// In a Zstandard frame at the offset.
    Zstd,
}

impl Method {
    pub(super) const ALL: [Self; 5] =
        [Self::Plain, Self::ZipStored, Self::ZipDeflated, Self::Snappy, Self::Zstd];
}

/// Where a member's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) method: Method,
    pub(super) offset: u64,
    /// Bytes unpacked.
    pub(super) size: u32,
    /// Bytes to unpack, unless they are stored as they are.
    pub(super) packed: u32,
    /// Zip: the CRC-32. Snappy and Zstandard: unpacked bytes before the member's.
    pub(super) extra: u32,
}

impl Place {
    /// A place whose size is within bounds.
    pub(super) fn new(method: Method, offset: u64, size: u64) -> Result<Self, Fault> {
        match u32::try_from(size) {
            Ok(size) if u64::from(size) <= LARGEST => {
                Ok(Self { method, offset, size, packed: 0, extra: 0 })
            }
            _ => Err(Problem::TooLarge { bytes: size, limit: LARGEST }.into()),
        }
    }
}

/// A member, with its name in a block of names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    start: u32,
    len: u32,
    pub(super) place: Place,
}

/// The members of an archive.
#[derive(Debug, Default)]
pub(super) struct Found {
    names: String,
    pub(super) items: Vec<Item>,
}

impl Found {
    pub(super) fn push(&mut self, name: &str, place: Place) -> Result<(), Fault> {
        let (start, len) = append(&mut self.names, name)?;
        self.items.push(Item { start, len, place });
        Ok(())
    }

    pub(super) fn name(&self, item: &Item) -> &str {
        slice(&self.names, item.start, item.len)
    }

    pub(super) fn bytes_of_names(&self) -> u64 {
        self.names.len() as u64
    }
}

/// An image with a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    start: u32,
    len: u32,
    pub(super) class: u32,
    /// The digits of its WordNet identifier.
    pub(super) identifier: Option<u32>,
    pub(super) png: bool,
    pub(super) place: Place,
}

/// The images of an archive of labelled images.
#[derive(Debug, Default)]
pub(super) struct Images {
    stems: String,
    pub(super) images: Vec<Image>,
}

impl Images {
    /// An empty stem stands for the number of the image in its split.
    pub(super) fn push(
        &mut self,
        stem: &str,
        identifier: Option<u32>,
        class: u32,
        png: bool,
        place: Place,
    ) -> Result<(), Fault> {
        let (start, len) = append(&mut self.stems, stem)?;
        self.images.push(Image { start, len, class, identifier, png, place });
        Ok(())
    }

    pub(super) fn stem(&self, image: &Image) -> &str {
        slice(&self.stems, image.start, image.len)
    }
}

fn append(names: &mut String, name: &str) -> Result<(u32, u32), Fault> {
    match (u32::try_from(names.len()), u32::try_from(names.len() + name.len())) {
        (Ok(start), Ok(_)) => {
            names.push_str(name);
            Ok((start, name.len() as u32))
        }
        _ => Err(Fault::damaged("its names have more than 4 GiB")),
    }
}

fn slice(names: &str, start: u32, len: u32) -> &str {
    names.get(start as usize..start as usize + len as usize).unwrap_or_default()
}

/// Bytes of archives that were listed, told to whoever waits.
pub(super) struct Progress<'a> {
    done: AtomicU64,
    total: u64,
    told: &'a (dyn Fn(u64, u64) -> bool + Sync),
}

impl<'a> Progress<'a> {
    pub(super) fn new(total: u64, told: &'a (dyn Fn(u64, u64) -> bool + Sync)) -> Self {
        Self { done: AtomicU64::new(0), total, told }
    }

    /// Some more bytes; an error when it is to end.
    pub(super) fn advance(&self, bytes: u64) -> Result<(), Fault> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if (self.told)(done.min(self.total), self.total) { Ok(()) } else { Err(Fault::Interrupted) }
    }
}
