//! A reader of ISO 9660, Joliet and Rock Ridge, written from the specifications alone: it shares nothing with what
//! it judges, and panics wherever anything is not as it must be.

use chart::{Source, Wait};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SECTOR: usize = 2048;

/// What was found of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) directory: bool,
    /// First sector and length of each section.
    pub(super) sections: Vec<(u32, u32)>,
    pub(super) date: [u8; 7],
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) serial: u32,
    pub(super) target: Option<Vec<u8>>,
    pub(super) device: Option<(u32, u32)>,
    /// Creation, modification, access, attributes: as written.
    pub(super) times: [Option<Vec<u8>>; 4],
    /// The identifier in the record, without the version.
    pub(super) identifier: Vec<u8>,
}

impl Found {
    pub(super) fn len(&self) -> u64 {
        self.sections.iter().map(|&(_, len)| u64::from(len)).sum()
    }

    /// The first byte of its content.
    pub(super) fn at(&self) -> u64 {
        u64::from(self.sections[0].0) * SECTOR as u64
    }
}

/// A volume: its label, and everything in it by path.
pub(super) struct Volume {
    pub(super) label: Vec<u8>,
    pub(super) created: Vec<u8>,
    pub(super) files: BTreeMap<Vec<u8>, Found>,
}

/// Both volumes of a disk, the second being Joliet's.
pub(super) fn parse(disk: &dyn Source) -> (Volume, Option<Volume>) {
    let (mut primary, mut joliet) = (None, None);
    for sector in 16.. {
        let d = read(disk, sector, SECTOR);
        assert_eq!(&d[1..7], b"CD001\x01", "sector {sector}");
        match d[0] {
            1 => {
                assert!(primary.is_none() && d[7] == 0 && d[88..120].iter().all(|&b| b == 0));
                primary = Some(Reader { disk, joliet: false, descriptor: d });
            }
            2 => {
                assert_eq!((&d[88..91], d[7]), (&b"%/E"[..], 0));
                assert!(joliet.is_none() && d[91..120].iter().all(|&b| b == 0));
                joliet = Some(Reader { disk, joliet: true, descriptor: d });
            }
            255 => {
                assert!(d[7..].iter().all(|&b| b == 0));
                break;
            }
            other => panic!("a volume descriptor of type {other}"),
        }
    }
    (primary.unwrap().volume(), joliet.map(|joliet| joliet.volume()))
}

fn read(disk: &dyn Source, sector: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; len];
    disk.read_at(u64::from(sector) * SECTOR as u64, &mut bytes, Wait::Allowed).unwrap();
    bytes
}

fn both16(bytes: &[u8]) -> u16 {
    let n = u16::from_le_bytes([bytes[0], bytes[1]]);
    assert_eq!(n, u16::from_be_bytes([bytes[2], bytes[3]]));
    n
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn both32(bytes: &[u8]) -> u32 {
    assert_eq!(le32(bytes), be32(&bytes[4..]));
    le32(bytes)
}

struct Reader<'a> {
    disk: &'a dyn Source,
    joliet: bool,
    descriptor: Vec<u8>,
}

/// A directory record, apart from what it says of system use.
struct Record {
    identifier: Vec<u8>,
    sector: u32,
    len: u32,
    date: [u8; 7],
    flags: u8,
    system_use: Vec<u8>,
}

/// A name, and the records of what has it.
type Named = (Vec<u8>, Vec<Record>);

impl Record {
    fn parse(bytes: &[u8]) -> Record {
        let name_len = usize::from(bytes[32]);
        assert!(name_len > 0 && bytes[0].is_multiple_of(2));
        assert_eq!((bytes[1], bytes[26], bytes[27], both16(&bytes[28..])), (0, 0, 0, 1));
        let name_end = 33 + name_len;
        if name_len.is_multiple_of(2) {
            assert_eq!(bytes[name_end], 0, "the padding field");
        }
        Record {
            identifier: bytes[33..name_end].to_vec(),
            sector: both32(&bytes[2..]),
            len: both32(&bytes[10..]),
            date: bytes[18..25].try_into().unwrap(),
            flags: bytes[25],
            // 33 is odd: there is a padding byte where the identifier is even.
            system_use: bytes[name_end + usize::from(name_len.is_multiple_of(2))..].to_vec(),
        }
    }
}

impl Reader<'_> {
    fn volume(&self) -> Volume {
        let d = &self.descriptor;
        let sectors = self.disk.len() / SECTOR as u64;
        assert_eq!(u64::from(both32(&d[80..])), sectors, "the volume space size");
        assert_eq!((both16(&d[120..]), both16(&d[124..]), both16(&d[128..])), (1, 1, 2048));
        assert_eq!((d[881], d[882], d[156]), (1, 0, 34));
        let root = Record::parse(&d[156..190]);
        assert_eq!((root.identifier.as_slice(), root.flags), (&[0][..], 2));
        let files = self.walk(root);
        Volume { label: d[40..72].to_vec(), created: d[813..830].to_vec(), files }
    }

    /// Every directory, in the order that path tables have; checks these on the way.
    fn walk(&self, root: Record) -> BTreeMap<Vec<u8>, Found> {
        let table = self.path_table();
        let (mut files, mut queue, mut number) = (BTreeMap::new(), VecDeque::new(), 0_usize);
        let (root_sector, root_len) = (root.sector, root.len);
        queue.push_back((Vec::new(), root, 1_usize, (root_sector, root_len)));
        while let Some((path, record, parent, above)) = queue.pop_front() {
            number += 1;
            if parent <= 65535 {
                let (identifier, sector, of) = &table[number - 1];
                assert_eq!((identifier, *sector), (&record.identifier, record.sector));
                assert_eq!(usize::from(*of), parent, "of directory {number}");
            } else {
                assert!(table.len() < number);
            }
            let here = (record.sector, record.len);
            let (found, inside) = self.directory(&path, here, above);
            files.insert(path.clone(), found);
            for (name, list) in inside {
                let path = if path.is_empty() { name } else { [path.as_slice(), b"/", &name].concat() };
                let first = &list[0];
                if first.flags & 2 != 0 {
                    let record = list.into_iter().next().unwrap();
                    queue.push_back((path, record, number, here));
                } else {
                    let found = self.file(&list);
                    assert!(files.insert(path, found).is_none());
                }
            }
        }
        assert!(table.len() == number || number > 65535);
        files
    }

    /// Identifier, sector and parent of each directory: the same in both tables.
    fn path_table(&self) -> Vec<(Vec<u8>, u32, u16)> {
        let d = &self.descriptor;
        let len = both32(&d[132..]) as usize;
        assert_eq!((le32(&d[144..]), be32(&d[152..])), (0, 0), "no optional tables");
        let l = read(self.disk, le32(&d[140..]), len);
        let m = read(self.disk, be32(&d[148..]), len);
        let (mut all, mut at) = (Vec::new(), 0);
        while at < len {
            let name_len = usize::from(l[at]);
            assert_eq!((l[at + 1], m[at + 1], usize::from(m[at])), (0, 0, name_len));
            let (sector, parent) = (le32(&l[at + 2..]), u16::from_le_bytes([l[at + 6], l[at + 7]]));
            assert_eq!(sector, be32(&m[at + 2..]));
            assert_eq!(parent, u16::from_be_bytes([m[at + 6], m[at + 7]]));
            let name = l[at + 8..at + 8 + name_len].to_vec();
            assert_eq!(name, m[at + 8..at + 8 + name_len]);
            all.push((name, sector, parent));
            at += (8 + name_len).next_multiple_of(2);
        }
        assert_eq!(at, len);
        all
    }

    /// What a directory says of itself, and the records in it: those of one file together, by name.
    fn directory(&self, path: &[u8], here: (u32, u32), above: (u32, u32)) -> (Found, Vec<Named>) {
        assert!(here.1 > 0 && (here.1 as usize).is_multiple_of(SECTOR));
        let bytes = read(self.disk, here.0, here.1 as usize);
        let mut records = Vec::new();
        for sector in bytes.chunks(SECTOR) {
            let mut at = 0;
            while at < SECTOR && sector[at] != 0 {
                let end = at + usize::from(sector[at]);
                assert!(end <= SECTOR, "a record crosses the end of a sector");
                records.push(Record::parse(&sector[at..end]));
                at = end;
            }
            assert!(at > 0, "an empty sector");
            assert!(sector[at..].iter().all(|&b| b == 0), "no record after the first zero");
        }
        let mut records = records.into_iter();
        let (own, parent) = (records.next().unwrap(), records.next().unwrap());
        assert_eq!((own.identifier.as_slice(), (own.sector, own.len), own.flags), (&[0][..], here, 2));
        assert_eq!((parent.identifier.as_slice(), (parent.sector, parent.len)), (&[1][..], above));
        let mut found = Found { directory: true, date: own.date, ..Found::default() };
        if !self.joliet {
            let mut area = own.system_use.clone();
            if path.is_empty() {
                assert_eq!(&area[..7], b"SP\x07\x01\xbe\xef\0", "at the root, the protocol is announced");
                area.drain(..7);
            }
            let said = self.system_use(&area);
            assert_eq!(said.extension.is_some(), path.is_empty());
            assert!(said.extension.as_ref().is_none_or(|id| id == b"IEEE_P1282"));
            assert!(said.name.is_none() && said.target.is_none());
            said.into(&mut found);
            assert_eq!(found.mode & 0o170000, 0o040000);
        }
        let mut list: Vec<Named> = Vec::new();
        let mut goes_on = false;
        for record in records {
            if goes_on {
                let (_, same) = list.last_mut().unwrap();
                assert_eq!(same[0].identifier, record.identifier);
                goes_on = record.flags & 0x80 != 0;
                same.push(record);
                continue;
            }
            goes_on = record.flags & 0x80 != 0;
            let name = self.name(&record);
            list.push((name, vec![record]));
        }
        assert!(!goes_on);
        self.sorted(&list);
        (found, list)
    }

    /// A file's own name, as far as this volume tells it.
    fn name(&self, record: &Record) -> Vec<u8> {
        if !self.joliet {
            return self.system_use(&record.system_use).name.unwrap();
        }
        let units: Vec<u16> =
            record.identifier.chunks(2).map(|unit| u16::from_be_bytes(unit.try_into().unwrap())).collect();
        let name = String::from_utf16(&units).unwrap();
        let directory = record.flags & 2 != 0;
        let name = if directory { name.as_str() } else { name.strip_suffix(";1").unwrap() };
        assert!(!name.contains(['*', '/', ':', ';', '?', '\\']), "{name}");
        assert!(name.encode_utf16().count() <= 103);
        name.as_bytes().to_vec()
    }

    /// No two identifiers are the same; they are in the order of ECMA-119 9.3, and well-formed.
    fn sorted(&self, list: &[Named]) {
        let mut seen = BTreeSet::new();
        let mut before: Option<(Vec<u16>, Vec<u16>)> = None;
        for (name, records) in list {
            let record = &records[0];
            assert!(seen.insert(record.identifier.clone()), "{:?} is there twice", record.identifier);
            let key = if self.joliet { joliet_key(record) } else { plain_key(record) };
            if let Some(before) = &before {
                assert!(*before < key, "{} is not behind its neighbour", name.escape_ascii());
            }
            before = Some(key);
        }
    }

    fn file(&self, list: &[Record]) -> Found {
        let first = &list[0];
        let mut found = Found {
            sections: list.iter().map(|record| (record.sector, record.len)).collect(),
            date: first.date,
            identifier: first.identifier.clone(),
            ..Found::default()
        };
        let mut next = None;
        for (i, record) in list.iter().enumerate() {
            assert_eq!(record.flags, if i + 1 < list.len() { 0x80 } else { 0 });
            assert!(next.is_none_or(|next| next == record.sector), "sections are one behind the other");
            next = Some(record.sector + record.len / 2048);
            assert_eq!(record.system_use, first.system_use);
        }
        if !self.joliet {
            self.system_use(&first.system_use).into(&mut found);
        }
        found
    }

    /// The fields of system use, those that are continued elsewhere included.
    fn system_use(&self, area: &[u8]) -> Said {
        let (mut said, mut area) = (Said::default(), area.to_vec());
        for _ in 0..32 {
            let mut next = None;
            let mut rest = area.as_slice();
            while rest.len() >= 4 {
                let (signature, len) = (&rest[..2], usize::from(rest[2]));
                assert!(len >= 4 && len <= rest.len() && rest[3] == 1, "{signature:?}");
                let body = &rest[4..len];
                if signature == b"CE" {
                    assert!(next.is_none() && body.len() == 24);
                    next = Some((both32(body), both32(&body[8..]), both32(&body[16..])));
                } else {
                    said.field(signature, body);
                }
                rest = &rest[len..];
            }
            assert!(rest.iter().all(|&b| b == 0) && rest.len() < 4);
            let Some((sector, offset, len)) = next else { return said.end() };
            assert!(offset + len <= 2048, "a continuation area crosses the end of a sector");
            let sector = read(self.disk, sector, SECTOR);
            area = sector[offset as usize..][..len as usize].to_vec();
        }
        panic!("continued too often");
    }
}

/// What system use fields say.
#[derive(Default)]
struct Said {
    numbers: Option<[u32; 5]>,
    times: Option<[Option<Vec<u8>>; 4]>,
    name: Option<Vec<u8>>,
    name_goes_on: bool,
    target: Option<Vec<u8>>,
    /// Within a target: whether another field follows, whether its last name goes on, whether it needs a slash.
    target_state: (bool, bool, bool),
    device: Option<(u32, u32)>,
    extension: Option<Vec<u8>>,
}

impl Said {
    fn field(&mut self, signature: &[u8], body: &[u8]) {
        match signature {
            b"PX" => {
                assert!(self.numbers.is_none() && body.len() == 40);
                self.numbers = Some(std::array::from_fn(|i| both32(&body[8 * i..])));
            }
            b"TF" => {
                let (flags, mut rest) = (body[0], &body[1..]);
                let width = if flags & 0x80 != 0 { 17 } else { 7 };
                let times = std::array::from_fn(|i| {
                    (flags & 1 << i != 0).then(|| {
                        let (time, behind) = rest.split_at(width);
                        rest = behind;
                        time.to_vec()
                    })
                });
                assert!(rest.is_empty() && flags & 0x70 == 0 && self.times.is_none());
                self.times = Some(times);
            }
            b"NM" => {
                assert!(self.name.is_some() == self.name_goes_on && body[0] & !1 == 0);
                self.name.get_or_insert_default().extend(&body[1..]);
                self.name_goes_on = body[0] & 1 != 0;
            }
            b"SL" => {
                assert!(self.target.is_some() == self.target_state.0);
                self.target_state.0 = body[0] & 1 != 0;
                self.components(&body[1..]);
            }
            b"PN" => {
                assert!(self.device.is_none() && body.len() == 16);
                self.device = Some((both32(body), both32(&body[8..])));
            }
            b"ER" => {
                assert_eq!(body.len(), 4 + body[..3].iter().map(|&n| usize::from(n)).sum::<usize>());
                assert!(body[3] == 1 && self.extension.is_none());
                self.extension = Some(body[4..][..usize::from(body[0])].to_vec());
            }
            other => panic!("a field {}", other.escape_ascii()),
        }
    }

    fn components(&mut self, mut rest: &[u8]) {
        let target = self.target.get_or_insert_default();
        let (_, goes_on, slash) = &mut self.target_state;
        while !rest.is_empty() {
            let (flags, len) = (rest[0], usize::from(rest[1]));
            if *slash && !*goes_on {
                target.push(b'/');
            }
            match flags & !1 {
                0 => target.extend(&rest[2..2 + len]),
                2 => target.extend(b"."),
                4 => target.extend(b".."),
                8 => target.push(b'/'),
                other => panic!("a component with flags {other}"),
            }
            (*goes_on, *slash) = (flags & 1 != 0, flags & !1 != 8);
            rest = &rest[2 + len..];
        }
    }

    fn end(self) -> Said {
        assert!(!self.name_goes_on && !self.target_state.0 && !self.target_state.1);
        self
    }

    fn into(self, found: &mut Found) {
        [found.mode, found.links, found.uid, found.gid, found.serial] = self.numbers.unwrap();
        found.times = self.times.unwrap();
        (found.target, found.device) = (self.target, self.device);
        assert_eq!(found.target.is_some(), found.mode & 0o170000 == 0o120000);
    }
}

/// Name and extension, as ECMA-119 9.3 compares them: each padded with what comes before every character.
fn plain_key(record: &Record) -> (Vec<u16>, Vec<u16>) {
    let identifier = record.identifier.as_slice();
    let d = |bytes: &[u8]| bytes.iter().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    let wide = |bytes: &[u8]| bytes.iter().map(|&b| u16::from(b)).collect::<Vec<_>>();
    if record.flags & 2 != 0 {
        assert!(d(identifier) && identifier.len() <= 31, "{}", identifier.escape_ascii());
        return (wide(identifier), Vec::new());
    }
    let bare = identifier.strip_suffix(b";1").unwrap();
    let dot = bare.iter().position(|&b| b == b'.').unwrap();
    let (name, extension) = (&bare[..dot], &bare[dot + 1..]);
    assert!(d(name) && d(extension) && name.len() + extension.len() <= 30, "{}", bare.escape_ascii());
    assert!(!name.is_empty() || !extension.is_empty());
    (wide(name), wide(extension))
}

/// The same of Joliet, where a name may have several dots: each comes before every other character.
fn joliet_key(record: &Record) -> (Vec<u16>, Vec<u16>) {
    let bytes = record.identifier.as_slice();
    let bytes = if record.flags & 2 != 0 { bytes } else { bytes.strip_suffix(b"\0;\x001").unwrap() };
    let unit = |unit: &[u8]| match u16::from_be_bytes(unit.try_into().unwrap()) {
        0x2e => 0,
        unit => unit,
    };
    (bytes.chunks(2).map(unit).collect(), Vec::new())
}
