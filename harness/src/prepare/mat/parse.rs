use std::io::Read;

use flate2::read::ZlibDecoder;

use super::{MatError, Value};

const HEADER: usize = 128;
/// Arrays in arrays.
const DEPTH: usize = 16;
/// Dimensions of an array.
const DIMENSIONS: usize = 32;
/// Bytes that the compressed elements of a file may grow to.
const INFLATED: usize = 32 << 20;

// Types of elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const INT64: u32 = 12;
const UINT64: u32 = 13;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;
const UTF16: u32 = 17;

/// The named arrays of a file.
///
/// # Errors
/// [`MatError`].
pub fn read(bytes: &[u8]) -> Result<Vec<(String, Value)>, MatError> {
    let big = match bytes.get(HEADER - 4..HEADER) {
        Some([0, 1, b'I', b'M']) => false,
        Some([1, 0, b'M', b'I']) => true,
        Some(end) => return Err(MatError::Header { found: format!("{end:02x?}") }),
        None => return Err(MatError::Header { found: format!("{} bytes", bytes.len()) }),
    };
    let mut cursor = Cursor { bytes, at: HEADER, big };
    let (mut arrays, mut inflated) = (Vec::new(), 0);
    while !cursor.rest().is_empty() {
        let element = cursor.element("an element")?;
        match element.kind {
            MATRIX => arrays.push(array(element.content(big), 0)?),
            COMPRESSED => {
                let whole = inflate(&element, INFLATED - inflated)?;
                inflated += whole.len();
                let mut inner = Cursor { bytes: &whole, at: 0, big };
                let element = inner.element("a compressed element")?;
                if element.kind != MATRIX {
                    return Err(element.is_no("a compressed array"));
                }
                arrays.push(array(element.content(big), 0)?);
            }
            // Whatever else, for example of the file's subsystem, is no named array.
            _ => {}
        }
    }
    Ok(arrays)
}

fn inflate(element: &Element<'_>, room: usize) -> Result<Vec<u8>, MatError> {
    let mut whole = Vec::new();
    let decoder = ZlibDecoder::new(element.bytes);
    let read = decoder.take(room as u64 + 1).read_to_end(&mut whole);
    let why =
        |error: std::io::Error| MatError::Compressed { at: element.at, why: error.to_string() };
    read.map_err(why)?;
    if whole.len() > room {
        return Err(MatError::Large {
            at: element.at,
            what: "bytes uncompressed",
            limit: INFLATED,
        });
    }
    Ok(whole)
}

/// Bytes that are read from front to back.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

/// A tag and what it announces.
struct Element<'a> {
    kind: u32,
    at: usize,
    bytes: &'a [u8],
}

impl<'a> Element<'a> {
    /// A cursor over the elements in this one.
    fn content(&self, big: bool) -> Cursor<'a> {
        Cursor { bytes: self.bytes, at: 0, big }
    }

    fn is_no(&self, expected: &'static str) -> MatError {
        MatError::Type { at: self.at, expected, found: self.kind }
    }
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], MatError> {
        let rest = self.rest();
        let short = MatError::Short { at: self.at, what, expected: count, found: rest.len() };
        let taken = rest.get(..count).ok_or(short)?;
        self.at += count;
        Ok(taken)
    }

    fn word(&mut self, what: &'static str) -> Result<u32, MatError> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4, what)?);
        Ok(if self.big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    }

    fn element(&mut self, what: &'static str) -> Result<Element<'a>, MatError> {
        let at = self.at;
        let tag = self.word(what)?;
        let small = (tag >> 16) as usize;
        if small > 0 {
            // Type, length and up to four bytes in eight.
            let data = self.take(4, what)?;
            let short = MatError::Short { at, what, expected: small, found: 4 };
            let bytes = data.get(..small).ok_or(short)?;
            return Ok(Element { kind: tag & 0xffff, at, bytes });
        }
        let length = self.word(what)? as usize;
        let bytes = self.take(length, what)?;
        if tag != COMPRESSED {
            // Padded to eight bytes, but perhaps not at the very end.
            self.at = (self.at + length.next_multiple_of(8) - length).min(self.bytes.len());
        }
        Ok(Element { kind: tag, at, bytes })
    }

    fn expect(&mut self, kind: u32, what: &'static str) -> Result<Element<'a>, MatError> {
        let element = self.element(what)?;
        if element.kind == kind { Ok(element) } else { Err(element.is_no(what)) }
    }
}

/// An array with its name; an array of no bytes is empty.
fn array(mut cursor: Cursor<'_>, depth: usize) -> Result<(String, Value), MatError> {
    if cursor.bytes.is_empty() {
        return Ok((String::new(), Value::Numbers { dims: vec![0, 0], values: Vec::new() }));
    }
    if depth > DEPTH {
        return Err(MatError::Large { at: cursor.at, what: "arrays in one another", limit: DEPTH });
    }
    let big = cursor.big;
    let flags = cursor.expect(UINT32, "flags of an array")?;
    let class = flags.content(big).word("flags of an array")? as u8;
    let sizes = cursor.expect(INT32, "dimensions of an array")?;
    let dims = dimensions(&sizes, big)?;
    let count = dims.iter().try_fold(1_usize, |all, &dim| all.checked_mul(dim));
    let count = count.ok_or(MatError::Dimensions { at: sizes.at })?;
    let name = cursor.expect(INT8, "the name of an array")?;
    let name = plain(name.bytes, name.at, "the name of an array")?;
    let value = match class {
        1 => Value::Cells(arrays(&mut cursor, count, depth)?),
        2 => structs(&mut cursor, count, depth)?,
        4 => {
            let element = cursor.element("text")?;
            Value::Text(text(&element, count, big)?)
        }
        6..=15 => {
            let element = cursor.element("numbers")?;
            let values = numbers(&element, count, big)?;
            Value::Numbers { dims, values }
        }
        other => Value::Unread(other),
    };
    Ok((name, value))
}

fn dimensions(element: &Element<'_>, big: bool) -> Result<Vec<usize>, MatError> {
    let broken = MatError::Dimensions { at: element.at };
    if element.bytes.len() > 4 * DIMENSIONS || element.bytes.len() < 8 {
        return Err(broken);
    }
    let mut cursor = element.content(big);
    let mut dims = Vec::new();
    while !cursor.rest().is_empty() {
        let dim = cursor.word("dimensions of an array")?;
        dims.push(i32::try_from(dim).map_err(|_| broken.clone())? as usize);
    }
    Ok(dims)
}

/// Arrays that follow one another.
fn arrays(cursor: &mut Cursor<'_>, count: usize, depth: usize) -> Result<Vec<Value>, MatError> {
    // Each has a tag of eight bytes at least.
    let most = cursor.rest().len() / 8;
    if count > most {
        let at = cursor.at;
        return Err(MatError::Count { at, what: "arrays", expected: count, found: most });
    }
    let big = cursor.big;
    let one = |_| {
        let element = cursor.expect(MATRIX, "an array")?;
        Ok(array(element.content(big), depth + 1)?.1)
    };
    (0..count).map(one).collect()
}

fn structs(cursor: &mut Cursor<'_>, count: usize, depth: usize) -> Result<Value, MatError> {
    let big = cursor.big;
    let width = cursor.expect(INT32, "the length of field names")?;
    let length = width.content(big).word("the length of field names")? as usize;
    let names = cursor.expect(INT8, "names of fields")?;
    let broken = MatError::Text { at: names.at, what: "a field's name" };
    if names.bytes.is_empty() {
        return Ok(Value::Structs { fields: Vec::new(), values: Vec::new() });
    }
    if length == 0 || names.bytes.len() % length != 0 {
        return Err(broken);
    }
    let name = |bytes| plain(bytes, names.at, "a field's name");
    let fields: Vec<String> = names.bytes.chunks(length).map(name).collect::<Result<_, _>>()?;
    let all = fields.len().checked_mul(count).ok_or(broken)?;
    Ok(Value::Structs { values: arrays(cursor, all, depth)?, fields })
}

/// A name: text up to a zero byte.
fn plain(bytes: &[u8], at: usize, what: &'static str) -> Result<String, MatError> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]);
    text.map(str::to_owned).map_err(|_| MatError::Text { at, what })
}

fn text(element: &Element<'_>, count: usize, big: bool) -> Result<String, MatError> {
    let broken = || MatError::Text { at: element.at, what: "text" };
    let bytes = element.bytes;
    let text: String = match element.kind {
        UTF8 => std::str::from_utf8(bytes).map_err(|_| broken())?.to_owned(),
        INT8 | UINT8 => bytes.iter().map(|&byte| char::from(byte)).collect(),
        UINT16 | UTF16 => {
            let unit = |pair: &[u8]| match pair {
                [a, b] if big => u16::from_be_bytes([*a, *b]),
                [a, b] => u16::from_le_bytes([*a, *b]),
                _ => 0,
            };
            char::decode_utf16(bytes.chunks(2).map(unit))
                .collect::<Result<_, _>>()
                .map_err(|_| broken())?
        }
        _ => return Err(element.is_no("text")),
    };
    let found = match element.kind {
        UTF8 => text.chars().count(),
        UINT16 | UTF16 => bytes.len() / 2,
        _ => bytes.len(),
    };
    // UTF-8 is counted in bytes by some writers, in characters by others.
    if found != count && !(element.kind == UTF8 && bytes.len() == count) {
        let what = "characters";
        return Err(MatError::Count { at: element.at, what, expected: count, found });
    }
    Ok(text)
}

/// Numbers of any class may be stored in any type that holds them.
fn numbers(element: &Element<'_>, count: usize, big: bool) -> Result<Vec<f64>, MatError> {
    macro_rules! of {
        ($type:ty) => {
            collect(element, count, |bytes| {
                (if big { <$type>::from_be_bytes(bytes) } else { <$type>::from_le_bytes(bytes) })
                    as f64
            })
        };
    }
    match element.kind {
        INT8 => of!(i8),
        UINT8 => of!(u8),
        INT16 => of!(i16),
        UINT16 => of!(u16),
        INT32 => of!(i32),
        UINT32 => of!(u32),
        SINGLE => of!(f32),
        DOUBLE => of!(f64),
        INT64 => of!(i64),
        UINT64 => of!(u64),
        // An empty array may have a tag of nothing.
        _ if count == 0 => Ok(Vec::new()),
        _ => Err(element.is_no("numbers")),
    }
}

fn collect<const WIDTH: usize>(
    element: &Element<'_>,
    count: usize,
    one: impl Fn([u8; WIDTH]) -> f64,
) -> Result<Vec<f64>, MatError> {
    let (whole, rest) = element.bytes.as_chunks::<WIDTH>();
    if whole.len() != count || !rest.is_empty() {
        let found = whole.len();
        return Err(MatError::Count { at: element.at, what: "numbers", expected: count, found });
    }
    Ok(whole.iter().map(|bytes| one(*bytes)).collect())
}
