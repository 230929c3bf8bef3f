//! The pages of a column, and places in them.

use std::io::{Seek, SeekFrom};

use polars_parquet_format::thrift::protocol::TCompactInputProtocol;
use polars_parquet_format::{ColumnMetaData, CompressionCodec, Encoding, PageHeader, PageType};

use super::super::error::{Fault, Problem};
use super::super::found::{Method, Place};
use super::super::read;
use super::super::source::{self, Window};
use super::snappy::{self, Stop, Walk};
use super::values;

/// Bytes of the longest header of a page; statistics in it have minima and maxima.
const LONGEST_HEADER: usize = 1 << 20;
/// The largest page that is unpacked whole, in bytes.
const LARGEST_WHOLE: u64 = 1 << 28;

/// A column of a row group.
pub(super) struct Column<'a> {
    pub(super) meta: &'a ColumnMetaData,
    /// Definition level of a value that is there.
    pub(super) defined: u32,
    pub(super) rows: usize,
}

/// A page with its values.
pub(super) enum Page {
    Dictionary { values: usize, content: Content },
    Data { defined: Vec<bool>, encoding: Encoding, content: Content },
}

/// The packed bytes of a page.
struct Body {
    at: u64,
    packed: u64,
    unpacked: u64,
    codec: CompressionCodec,
}

/// Calls `visit` with every page of a column.
pub(super) fn each(
    column: &Column<'_>,
    window: &mut Window<'_>,
    visit: &mut dyn FnMut(Page, &mut Window<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let meta = column.meta;
    let first = meta.dictionary_page_offset.filter(|&at| at > 0 && at < meta.data_page_offset);
    let mut at = unsigned(first.unwrap_or(meta.data_page_offset))?;
    let size = unsigned(meta.total_compressed_size)?;
    let end = at.checked_add(size).filter(|&end| end <= window.bytes().len());
    let end = end.ok_or(Problem::Truncated)?;
    let mut seen = 0;
    while seen < column.rows {
        if at >= end {
            return Err(Fault::damaged("a column has fewer pages than rows"));
        }
        window.seek(SeekFrom::Start(at))?;
        let mut thrift = TCompactInputProtocol::new(&mut *window, LONGEST_HEADER);
        let header = PageHeader::read_from_in_protocol(&mut thrift);
        let header = header.map_err(|error| Fault::damaged(format!("a page's header: {error}")))?;
        let body = Body {
            at: window.position(),
            packed: unsigned(header.compressed_page_size.into())?,
            unpacked: unsigned(header.uncompressed_page_size.into())?,
            codec: meta.codec,
        };
        at = body.at + body.packed;
        if at > end {
            return Err(Problem::Truncated.into());
        }
        if let Some(page) = page(column, column.rows - seen, &header, body, window)? {
            if let Page::Data { defined, .. } = &page {
                seen += defined.len();
            }
            visit(page, window)?;
        }
    }
    Ok(())
}

fn page(
    column: &Column<'_>,
    rows: usize,
    header: &PageHeader,
    mut body: Body,
    window: &mut Window<'_>,
) -> Result<Option<Page>, Fault> {
    let bit_width = u32::BITS - column.defined.leading_zeros();
    let levels = |bytes: &[u8], n: usize| {
        let levels = values::hybrid(bytes, bit_width, n);
        let levels = levels.ok_or_else(|| Fault::damaged("a page's levels"))?;
        Ok::<_, Fault>(levels.iter().map(|&level| level == column.defined).collect())
    };
    let count = |n: i32| {
        let n = usize::try_from(n).ok().filter(|&n| n <= rows);
        n.ok_or_else(|| Fault::damaged("a page has more values than its column has rows"))
    };
    match (&header.data_page_header, &header.data_page_header_v2, &header.dictionary_page_header) {
        (_, _, Some(dictionary)) if header.type_ == PageType::DICTIONARY_PAGE => {
            // Nothing is in it that is not in a row.
            let values = usize::try_from(dictionary.num_values).ok();
            let values = values.filter(|&n| n <= column.rows);
            let values = values.ok_or_else(|| Fault::damaged("a dictionary's size"))?;
            Ok(Some(Page::Dictionary { values, content: Content::new(&body, window)? }))
        }
        (Some(data), _, _) if header.type_ == PageType::DATA_PAGE => {
            let n = count(data.num_values)?;
            let mut content = Content::new(&body, window)?;
            let mut defined = vec![true; n];
            if column.defined > 0 {
                if data.definition_level_encoding != Encoding::RLE {
                    return Err(unsupported("levels in another encoding", "levels as RLE"));
                }
                let length = u64::from(content.length(window)?);
                if length > LONGEST_HEADER as u64 {
                    return Err(Fault::damaged("the length of a page's levels"));
                }
                defined = levels(&content.take(window, length)?, n)?;
            }
            Ok(Some(Page::Data { defined, encoding: data.encoding, content }))
        }
        (_, Some(data), _) if header.type_ == PageType::DATA_PAGE_V2 => {
            let n = count(data.num_values)?;
            let repetition = unsigned(data.repetition_levels_byte_length.into())?;
            let definition = unsigned(data.definition_levels_byte_length.into())?;
            let before = repetition + definition;
            if before > body.packed.min(body.unpacked) || definition > LONGEST_HEADER as u64 {
                return Err(Fault::damaged("a page is shorter than its levels"));
            }
            let bytes = window.slice(body.at + repetition, definition as usize)?;
            let defined = if column.defined > 0 { levels(bytes, n)? } else { vec![true; n] };
            body.at += before;
            body.packed -= before;
            body.unpacked -= before;
            if data.is_compressed == Some(false) || body.unpacked == 0 {
                body.codec = CompressionCodec::UNCOMPRESSED;
            }
            let content = Content::new(&body, window)?;
            Ok(Some(Page::Data { defined, encoding: data.encoding, content }))
        }
        _ if header.type_ == PageType::INDEX_PAGE => Ok(None),
        _ => Err(Fault::damaged("a page of no known kind")),
    }
}

/// The unpacked bytes of a page, read forward without unpacking more than is asked for.
pub(super) struct Content {
    form: Form,
    /// Place of the first packed byte after any preamble.
    start: u64,
    packed: u64,
    len: u64,
    position: u64,
}

enum Form {
    Plain,
    Walked(Walk),
    Whole(Method, Vec<u8>),
}

impl Content {
    fn new(body: &Body, window: &mut Window<'_>) -> Result<Self, Fault> {
        let Body { at, packed, unpacked, codec } = *body;
        let mut content = Self { form: Form::Plain, start: at, packed, len: unpacked, position: 0 };
        match codec {
            CompressionCodec::UNCOMPRESSED => {
                if packed != unpacked {
                    return Err(Fault::damaged("a page that is not packed has two sizes"));
                }
            }
            CompressionCodec::SNAPPY => {
                let head = window.slice(at, packed.min(5) as usize)?;
                let (head, _) = snappy::preamble(head)
                    .filter(|&(_, len)| len == unpacked)
                    .ok_or_else(|| Fault::damaged("a Snappy stream of another length"))?;
                content.start += head as u64;
                content.packed -= head as u64;
                content.form = Form::Walked(Walk::new(content.start, at + packed));
            }
            CompressionCodec::ZSTD => content.unpack(Method::Zstd, window)?,
            other => {
                let found = format!("pages with codec {}", other.0);
                return Err(unsupported(&found, "uncompressed, Snappy or Zstandard pages"));
            }
        }
        Ok(content)
    }

    fn unpack(&mut self, method: Method, window: &Window<'_>) -> Result<(), Fault> {
        if self.len > LARGEST_WHOLE {
            return Err(Problem::TooLarge { bytes: self.len, limit: LARGEST_WHOLE }.into());
        }
        let place = self.within(method, 0, self.len)?;
        self.form = Form::Whole(method, read::member(window.bytes(), &place, None)?);
        Ok(())
    }

    fn within(&self, method: Method, at: u64, size: u64) -> Result<Place, Fault> {
        let narrow = |n: u64| u32::try_from(n).map_err(|_| Fault::damaged("a page of 4 GiB"));
        let place = Place::new(method, self.start, size)?;
        Ok(Place { packed: narrow(self.packed)?, extra: narrow(at)?, ..place })
    }

    /// The next bytes.
    fn take(&mut self, window: &mut Window<'_>, n: u64) -> Result<Vec<u8>, Fault> {
        let at = self.skip(n)?;
        if let Form::Walked(walk) = &mut self.form {
            match walk.bytes(window, at, n) {
                Ok(bytes) => return Ok(bytes),
                Err(Stop::Fault(fault)) => return Err(fault),
                Err(Stop::Crossing) => self.unpack(Method::Snappy, window)?,
            }
        }
        match &self.form {
            Form::Whole(_, bytes) => bytes
                .get(at as usize..(at + n) as usize)
                .map(<[u8]>::to_owned)
                .ok_or_else(|| Problem::Truncated.into()),
            _ => source::exactly(window.bytes(), self.start + at, n),
        }
    }

    fn skip(&mut self, n: u64) -> Result<u64, Fault> {
        let at = self.position;
        self.position = at + n;
        let enough = self.position <= self.len;
        if enough { Ok(at) } else { Err(Fault::damaged("a page has fewer bytes than values")) }
    }

    /// The next four bytes as a number.
    fn length(&mut self, window: &mut Window<'_>) -> Result<u32, Fault> {
        // In the window: small values lie close together.
        if matches!(self.form, Form::Plain) {
            let at = self.start + self.skip(4)?;
            let bytes = window.slice(at, 4)?.try_into().map_err(|_| Problem::Truncated)?;
            return Ok(u32::from_le_bytes(bytes));
        }
        let bytes = self.take(window, 4)?;
        let bytes: [u8; 4] = bytes.try_into().map_err(|_| Problem::Truncated)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The place of the next byte array.
    pub(super) fn array(&mut self, window: &mut Window<'_>) -> Result<Place, Fault> {
        let size = u64::from(self.length(window)?);
        let at = self.skip(size)?;
        match &mut self.form {
            Form::Plain => Place::new(Method::Plain, self.start + at, size),
            Form::Whole(method, _) => {
                let method = *method;
                self.within(method, at, size)
            }
            Form::Walked(walk) => match walk.place(window, at, size) {
                Ok(place) => Ok(place),
                Err(Stop::Fault(fault)) => Err(fault),
                Err(Stop::Crossing) => {
                    self.unpack(Method::Snappy, window)?;
                    self.within(Method::Snappy, at, size)
                }
            },
        }
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self, window: &mut Window<'_>) -> Result<Vec<u8>, Fault> {
        if let Form::Walked(_) = self.form {
            self.unpack(Method::Snappy, window)?;
        }
        if self.len > LARGEST_WHOLE {
            return Err(Problem::TooLarge { bytes: self.len, limit: LARGEST_WHOLE }.into());
        }
        self.take(window, self.len - self.position)
    }
}

/// Places in a dictionary, one a value.
pub(super) fn indices(
    content: &mut Content,
    window: &mut Window<'_>,
    n: usize,
) -> Result<Vec<u32>, Fault> {
    let bytes = content.rest(window)?;
    let numbers = match bytes.split_first() {
        Some((&width, rest)) => values::hybrid(rest, width.into(), n),
        None => (n == 0).then(Vec::new),
    };
    numbers.ok_or_else(|| Fault::damaged("a page's places in its dictionary"))
}

/// Whether values are places in a dictionary; the other encoding that is read is the plain one.
pub(super) fn in_dictionary(encoding: Encoding) -> Result<bool, Fault> {
    match encoding {
        Encoding::PLAIN => Ok(false),
        Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => Ok(true),
        other => {
            let found = format!("values in encoding {}", other.0);
            Err(unsupported(&found, "plain values or places in a dictionary"))
        }
    }
}

pub(super) fn unsigned(number: i64) -> Result<u64, Fault> {
    u64::try_from(number).map_err(|_| Fault::damaged("a negative size"))
}

pub(super) fn unsupported(found: &str, expected: &'static str) -> Fault {
    Problem::Unsupported { found: found.to_owned(), expected }.into()
}
