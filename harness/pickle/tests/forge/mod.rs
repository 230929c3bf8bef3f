//! Makes pickles, zip archives and older checkpoints instruction by instruction.
#![allow(dead_code)] // each test file uses a part

/// The first pickle of an older checkpoint.
pub const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The code of a pickle.
pub struct Assembler {
    pub code: Vec<u8>,
}

impl Assembler {
    pub fn new() -> Self {
        Self { code: b"\x80\x02".to_vec() }
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.code.extend_from_slice(bytes);
        self
    }

    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.bytes(&[byte])
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.byte(b'X').bytes(&(text.len() as u32).to_le_bytes()).bytes(text.as_bytes())
    }

    pub fn int(&mut self, value: i64) -> &mut Self {
        self.bytes(b"\x8a\x08").bytes(&value.to_le_bytes())
    }

    pub fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.bytes(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn storage(&mut self, class: &str, key: &str, count: i64) -> &mut Self {
        self.byte(b'(').text("storage").global("torch", class).text(key).text("cpu");
        self.int(count).bytes(b"tQ")
    }

    pub fn tensor(
        &mut self,
        class: &str,
        key: &str,
        count: i64,
        offset: i64,
        sizes: &[i64],
        strides: &[i64],
    ) -> &mut Self {
        self.global("torch._utils", "_rebuild_tensor_v2").byte(b'(');
        self.storage(class, key, count).int(offset);
        for tuple in [sizes, strides] {
            self.byte(b'(');
            for value in tuple {
                self.int(*value);
            }
            self.byte(b't');
        }
        self.byte(0x89).bytes(b"ccollections\nOrderedDict\n)R").bytes(b"tR")
    }

    /// The whole pickle; more may be added to the code afterwards.
    pub fn stop(&self) -> Vec<u8> {
        [&self.code[..], b"."].concat()
    }
}

/// An entry of a zip archive's directory.
#[derive(Clone)]
pub struct Record {
    pub name: String,
    pub size: u32,
    pub place: u32,
    pub crc: u32,
    pub method: u16,
    pub flags: u16,
    pub extra: Vec<u8>,
}

/// An entry's header and bytes.
pub fn local(name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend_from_slice(&[0; 22]);
    bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// A directory for entries, and the record that ends the file; `start` is where it stands.
pub fn directory(records: &[Record], start: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(b"PK\x01\x02\0\0\0\0");
        bytes.extend_from_slice(&record.flags.to_le_bytes());
        bytes.extend_from_slice(&record.method.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for number in [record.crc, record.size, record.size] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(record.name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(record.extra.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&record.place.to_le_bytes());
        bytes.extend_from_slice(record.name.as_bytes());
        bytes.extend_from_slice(&record.extra);
    }
    let (size, count) = (bytes.len() as u32, records.len() as u16);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&start.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes
}

/// The same archive with every size and place written as 64 bits.
pub fn zip64(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = zip(entries, &|records| {
        for record in records {
            let wide = [record.size, record.size, record.place].map(u64::from);
            record.extra =
                [b"\x07\x00\x02\x00zz\x01\x00\x18\x00", wide.map(u64::to_le_bytes).as_flattened()]
                    .concat();
            (record.size, record.place) = (u32::MAX, u32::MAX);
        }
    });
    let end = bytes.len() - 22;
    let number = |at: usize| {
        u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
    };
    let (size, start) = (number(end + 12), number(end + 16));
    bytes.truncate(end);
    bytes.extend_from_slice(b"PK\x06\x06");
    bytes.extend_from_slice(&44u64.to_le_bytes());
    bytes.extend_from_slice(&[0; 12]);
    for number in [entries.len() as u64, entries.len() as u64, size, start] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(b"PK\x06\x07\0\0\0\0");
    bytes.extend_from_slice(&(end as u64).to_le_bytes());
    bytes.extend_from_slice(b"\x01\0\0\0PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&[0xff; 12]);
    bytes.extend_from_slice(&[0; 2]);
    bytes
}

/// A zip archive, its directory changed before it is written.
pub fn zip(entries: &[(&str, &[u8])], change: &dyn Fn(&mut Vec<Record>)) -> Vec<u8> {
    let (mut bytes, mut records) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let crc = crc32fast::hash(data);
        let (name, size, place) = ((*name).to_owned(), data.len() as u32, bytes.len() as u32);
        bytes.extend_from_slice(&local(&name, data));
        let extra = Vec::new();
        records.push(Record { name, size, place, crc, method: 0, flags: 0, extra });
    }
    change(&mut records);
    bytes.extend_from_slice(&directory(&records, bytes.len() as u32));
    bytes
}

/// A zip checkpoint of a pickle and storages.
pub fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let names: Vec<String> = storages.iter().map(|(key, _)| format!("x/data/{key}")).collect();
    let mut entries = vec![("x/data.pkl", pickle)];
    entries.extend(names.iter().zip(storages).map(|(name, (_, data))| (&**name, *data)));
    zip(&entries, &|_| ())
}

/// An older checkpoint of a pickle and storages, each with the bytes of an element.
pub fn legacy(pickle: &[u8], storages: &[(&str, usize, &[u8])]) -> Vec<u8> {
    let mut bytes = [MAGIC, b"\x80\x02M\xe9\x03.", b"\x80\x02}.", pickle].concat();
    let mut keys = Assembler::new();
    keys.bytes(b"](");
    storages.iter().for_each(|(key, ..)| _ = keys.text(key));
    bytes.extend_from_slice(&keys.byte(b'e').stop());
    for (_, size, data) in storages {
        bytes.extend_from_slice(&((data.len() / size) as u64).to_le_bytes());
        bytes.extend_from_slice(data);
    }
    bytes
}
