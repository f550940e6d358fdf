//! The binary form. All numbers are little-endian; `varint` is LEB128, `zigzag` a signed one.
//!
//! ```text
//! magic "PORTOLAN" | version u16 | zero u16 | crc32c of the body u32 | length of the body u64 | body
//! body: len varint | logical block varint
//!       sources varint, each: tag u8 (from version 2 on), and then one of
//!         0 outside: name (varint + UTF-8) | len varint | identity | modified
//!         1 inline: bytes (varint + bytes)
//!         2 family: root (varint + bytes) | len varint | members varint, each: member
//!       codecs varint, each: name
//!       extents varint, each: tag u8 | gap from the last end varint | length varint | place
//! modified: 0 | 1 nanoseconds (varint)
//! identity: 0 | 1 device inode generation (varints) | 2 key tag (texts)
//! member: flags u8 | bytes of its path that are those of the last one's varint | the rest (varint + bytes)
//!         gap from the last end varint | len varint | device varint, unless flag 1: the last one's
//!         inode zigzag from the last one's | changed zigzag from the last one's
//!         generation zigzag from changed, unless flag 8: 0
//!         modified zigzag from changed; with flag 2 nothing: it is that; with flag 4 whole seconds, from the last one's
//! place: hole and zero: nothing | raw: source varint, zigzag offset from where the last raw run ended
//!        frame: source, codec, offset, stored, decoded, skip (varints)
//! tag: bits 0-1 the kind (hole, zero, raw, frame), bit 2 writable
//! ```
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod sources;

use super::Written;
use super::sources::known;
use crate::{Chart, CodecId, Error, Extent, Frame, Identity, Place, Result, SourceId, Table, Wait};

/// How every `.chart` file begins.
pub const MAGIC: [u8; 8] = *b"PORTOLAN";
const VERSION: u16 = 2;
/// The version in which all sources were outside.
const ALL_OUTSIDE: u16 = 1;
const HEADER: usize = 24;

/// The most extents a chart file may hold.
pub const MAX_EXTENTS: u64 = 1 << 27;
/// The most sources.
pub const MAX_SOURCES: u64 = 1 << 16;
/// The longest name, in bytes.
pub const MAX_NAME: u64 = 4096;
/// The most codecs: what fits a [`CodecId`].
const MAX_CODECS: u64 = 256;

const HOLE: u8 = 0;
const ZERO: u8 = 1;
const RAW: u8 = 2;
const FRAME: u8 = 3;
const KIND: u8 = 3;
const WRITABLE: u8 = 4;

pub(super) fn encode(written: &Written) -> Result<Vec<u8>> {
    // Room for the header: a second place for all of it would take as much memory again.
    let mut body = Out(vec![0; HEADER]);
    body.varint(Chart::len(&written.table));
    body.varint(written.logical_block.into());
    body.sources(&written.sources)?;
    body.varint(count(written.codecs.len()));
    for codec in &written.codecs {
        body.text(codec)?;
    }
    body.extents(&written.table)?;
    let Out(mut bytes) = body;
    let (header, body) = bytes.split_at_mut(HEADER);
    let (sum, len) = (crc32c::crc32c(body), count(body.len()));
    let fields: [&[u8]; 5] =
        [&MAGIC, &VERSION.to_le_bytes(), &[0; 2], &sum.to_le_bytes(), &len.to_le_bytes()];
    header.copy_from_slice(&fields.concat());
    Ok(bytes)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

struct Out(Vec<u8>);

impl Out {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(u8::try_from(n & 0x7f).unwrap_or(0) | 0x80);
            n >>= 7;
        }
        self.0.push(u8::try_from(n).unwrap_or(0));
    }

    fn zigzag(&mut self, n: i64) {
        self.varint(n.wrapping_shl(1).cast_unsigned() ^ (n >> 63).cast_unsigned());
    }

    fn maybe(&mut self, n: Option<u64>) {
        self.0.push(u8::from(n.is_some()));
        n.into_iter().for_each(|n| self.varint(n));
    }

    fn text(&mut self, text: &str) -> Result<()> {
        if count(text.len()) > MAX_NAME {
            return Err(Error::invalid(format!("a name of more than {MAX_NAME} bytes")));
        }
        self.varint(count(text.len()));
        self.0.extend(text.as_bytes());
        Ok(())
    }

    fn identity(&mut self, identity: Option<&Identity>) -> Result<()> {
        match identity {
            // What is unique to one process means nothing in a file.
            None | Some(Identity::Unique(_)) => self.0.push(0),
            Some(Identity::File { device, inode, generation }) => {
                self.0.push(1);
                [device, inode, generation].into_iter().for_each(|&n| self.varint(n));
            }
            Some(Identity::Object { key, tag }) => {
                self.0.push(2);
                self.text(key)?;
                self.text(tag)?;
            }
        }
        Ok(())
    }

    fn extents(&mut self, table: &Table) -> Result<()> {
        let (mut all, mut how_many) = (Out(Vec::new()), 0_u64);
        let (mut at, mut end, mut expected) = (0, 0, 0);
        while at < Chart::len(table) {
            let extent = table.extent_at(at, u64::MAX, Wait::Allowed)?;
            at = extent.end();
            let kind = match extent.place {
                // What lies in a gap reads as zeros.
                Place::Zero if !extent.writable => continue,
                Place::Hole => HOLE,
                Place::Zero => ZERO,
                Place::Raw { .. } => RAW,
                Place::Frame { .. } => FRAME,
            };
            all.0.push(kind | if extent.writable { WRITABLE } else { 0 });
            all.varint(extent.at.saturating_sub(end));
            all.varint(extent.len);
            all.place(extent, &mut expected);
            (end, how_many) = (at, how_many.saturating_add(1));
        }
        self.varint(how_many);
        self.0.append(&mut all.0);
        Ok(())
    }

    fn place(&mut self, extent: Extent, expected: &mut u64) {
        match extent.place {
            Place::Raw { source, offset } => {
                self.varint(source.0.into());
                self.zigzag(offset.wrapping_sub(*expected).cast_signed());
                *expected = offset.wrapping_add(extent.len);
            }
            Place::Frame { offset, stored_len, decoded_len, skip, source, codec } => {
                self.varint(source.0.into());
                self.varint(codec.0.into());
                self.varint(offset);
                [stored_len, decoded_len, skip].into_iter().for_each(|n| self.varint(n.into()));
            }
            Place::Hole | Place::Zero => {}
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Written> {
    let (version, body) = checked_body(bytes)?;
    let mut input = In { rest: body, whole: body.len() };
    let len = input.varint()?;
    let logical_block = input.number("logical block")?;
    let sources = input.sources(version != ALL_OUTSIDE)?;
    let mut codecs = Vec::new();
    for _ in 0..input.limited(MAX_CODECS, "codecs")? {
        codecs.push(input.text()?);
    }
    let mut table = Table::builder();
    let mut expected = 0;
    for _ in 0..input.limited(MAX_EXTENTS, "extents")? {
        let extent = input.extent(table.end(), &mut expected)?;
        known(&extent, &sources, codecs.len()).map_err(|e| e.at(input.position()))?;
        table.push(extent).map_err(|e| Error::corrupt("an extent is misplaced").caused_by(e))?;
    }
    if !input.rest.is_empty() {
        return Err(input.corrupt("bytes behind the last extent"));
    }
    let table = table.finish(len).map_err(|e| Error::corrupt("the disk is too short").caused_by(e))?;
    Ok(Written { logical_block, sources, codecs, table })
}

/// The version, and the body.
fn checked_body(bytes: &[u8]) -> Result<(u16, &[u8])> {
    let short = || Error::corrupt("a chart file that ends in its header");
    let (head, body) = bytes.split_at_checked(HEADER).ok_or_else(short)?;
    let field = |from: usize, to: usize| head.get(from..to).unwrap_or_default();
    let number = |field: &[u8]| field.iter().rev().fold(0_u64, |n, &b| n << 8 | u64::from(b));
    if field(0, 8) != MAGIC {
        return Err(Error::corrupt("not a chart file"));
    }
    let version = u16::try_from(number(field(8, 10))).unwrap_or(0);
    if !(ALL_OUTSIDE..=VERSION).contains(&version) || number(field(10, 12)) != 0 {
        return Err(Error::unsupported(format!("a chart file of version {version}")));
    }
    if number(field(16, 24)) != count(body.len()) {
        return Err(Error::corrupt("the chart file is truncated or has bytes behind its end"));
    }
    if number(field(12, 16)) != u64::from(crc32c::crc32c(body)) {
        return Err(Error::corrupt("the chart file's checksum does not match"));
    }
    Ok((version, body))
}

struct In<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> In<'a> {
    fn position(&self) -> u64 {
        count(self.whole.saturating_sub(self.rest.len()).saturating_add(HEADER))
    }

    fn corrupt(&self, what: &'static str) -> Error {
        Error::corrupt(what).at(self.position())
    }

    fn byte(&mut self) -> Result<u8> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| self.corrupt("the chart ends too soon"))?;
        self.rest = rest;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut n = 0_u64;
        for shift in (0_u32..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits.wrapping_shl(shift);
            if shifted.wrapping_shr(shift) != bits {
                break;
            }
            n |= shifted;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(self.corrupt("a number that is too large"))
    }

    fn zigzag(&mut self) -> Result<i64> {
        let n = self.varint()?;
        Ok((n >> 1).cast_signed() ^ (n & 1).cast_signed().wrapping_neg())
    }

    fn number<N: TryFrom<u64>>(&mut self, what: &'static str) -> Result<N> {
        let n = self.varint()?;
        N::try_from(n).map_err(|_| Error::corrupt(format!("{what}: {n} is too large")).at(self.position()))
    }

    fn limited(&mut self, most: u64, what: &str) -> Result<u64> {
        match self.varint()? {
            n if n <= most => Ok(n),
            n => Err(Error::unsupported(format!("{n} {what}, of at most {most}")).at(self.position())),
        }
    }

    fn text(&mut self) -> Result<String> {
        let text = self.bytes(MAX_NAME, "bytes in a name")?;
        String::from_utf8(text.to_vec()).map_err(|_| self.corrupt("a name is not UTF-8"))
    }

    fn maybe(&mut self) -> Result<Option<u64>> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.varint().map(Some),
            _ => Err(self.corrupt("a number that is neither there nor not")),
        }
    }

    fn identity(&mut self) -> Result<Option<Identity>> {
        Ok(match self.byte()? {
            0 => None,
            1 => {
                let (device, inode, generation) = (self.varint()?, self.varint()?, self.varint()?);
                Some(Identity::File { device, inode, generation })
            }
            2 => Some(Identity::Object { key: self.text()?, tag: self.text()? }),
            _ => return Err(self.corrupt("an unknown kind of identity")),
        })
    }

    fn extent(&mut self, end: u64, expected: &mut u64) -> Result<Extent> {
        let tag = self.byte()?;
        if tag & !(KIND | WRITABLE) != 0 {
            return Err(self.corrupt("an unknown kind of extent"));
        }
        let (gap, len) = (self.varint()?, self.varint()?);
        let place = match tag & KIND {
            HOLE => Place::Hole,
            ZERO => Place::Zero,
            RAW => {
                let source = SourceId(self.number("source")?);
                let offset = expected.wrapping_add(self.zigzag()?.cast_unsigned());
                *expected = offset.wrapping_add(len);
                Place::Raw { source, offset }
            }
            _ => self.frame()?,
        };
        let at = end.checked_add(gap).ok_or_else(|| self.corrupt("an extent past all ends"))?;
        let extent = Extent { at, len, place, writable: tag & WRITABLE != 0 };
        sound(&extent).map_err(|e| e.at(self.position()))?;
        Ok(extent)
    }

    fn frame(&mut self) -> Result<Place> {
        Ok(Place::from(Frame {
            source: SourceId(self.number("source")?),
            codec: CodecId(self.number("codec")?),
            offset: self.varint()?,
            stored_len: self.number("stored length")?,
            decoded_len: self.number("decoded length")?,
            skip: self.number("skipped length")?,
        }))
    }
}

/// Refuses an extent that no chart may hold: empty, past all ends, longer than its frame.
pub(super) fn sound(extent: &Extent) -> Result<()> {
    let fits = match extent.place {
        Place::Raw { offset, .. } => offset.checked_add(extent.len).is_some(),
        Place::Frame { skip, decoded_len, .. } => {
            u64::from(skip).saturating_add(extent.len) <= u64::from(decoded_len)
        }
        Place::Hole | Place::Zero => true,
    };
    if extent.len == 0 || !fits {
        return Err(Error::corrupt("an extent that is empty or reaches past the end of its place"));
    }
    Ok(())
}
