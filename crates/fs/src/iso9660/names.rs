//! What things are called, in the two ways that ISO 9660 has: in d-characters, and in Joliet's sixteen bits.
//!
//! Rock Ridge gives every file its own name; these are for those who do not read it. They are made from the name
//! and, where that is not enough to tell it from its neighbours, a number.

use std::io::Write as _;

/// The most d-characters of a directory's identifier (ECMA-119 10.2).
const DIRECTORY_MOST: usize = 31;
/// The most d-characters of a file's name and extension together, the dot between them not counted.
const FILE_MOST: usize = 30;
/// The most d-characters of an extension.
const EXTENSION_MOST: usize = 8;
/// The most 16-bit units of a Joliet name: what Windows and Linux read, though the specification stops at 64.
pub(super) const JOLIET_MOST: usize = 103;
/// The most bytes that a name is sorted by: two for each unit of Joliet's.
pub(super) const KEY_MOST: usize = 2 * JOLIET_MOST;
/// The longest extension that a Joliet name keeps when it is cut.
const JOLIET_EXTENSION_MOST: usize = 16;

/// The version behind a file's name, which is always the first.
const VERSION: &[u8] = b";1";
const JOLIET_VERSION: &[u8] = &[0, b';', 0, b'1'];
const JOLIET_DOT: [u8; 2] = [0, b'.'];

/// A way to name things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// In d-characters: capital letters, digits and `_`.
    Plain,
    /// In UTF-16.
    Joliet,
}

impl Naming {
    /// Adds the identifier of what is called `name`, as it stands in a directory record. A `number` other than 0
    /// tells it from neighbours that would have the same.
    pub(super) fn identify(self, name: &[u8], directory: bool, number: u32, out: &mut Vec<u8>) {
        let start = out.len();
        self.write(name, directory, number, out);
        if directory {
            return;
        }
        match self {
            Naming::Plain => {
                // The dot is there even where there is no extension (7.5.1).
                if out.get(start..).is_some_and(|id| !id.contains(&b'.')) {
                    out.push(b'.');
                }
                out.extend_from_slice(VERSION);
            }
            Naming::Joliet => out.extend_from_slice(JOLIET_VERSION),
        }
    }

    /// Adds the bytes by whose order identifiers are sorted (9.3), and which no two of a directory share. A name
    /// that is the beginning of another comes first, and a name before those that have characters instead of its
    /// extension: as if the dot came before everything.
    pub(super) fn key(self, name: &[u8], directory: bool, number: u32, out: &mut Vec<u8>) {
        let start = out.len();
        self.write(name, directory, number, out);
        if self == Naming::Joliet
            && let Some(key) = out.get_mut(start..)
        {
            for unit in key.as_chunks_mut::<2>().0.iter_mut().filter(|unit| **unit == JOLIET_DOT) {
                *unit = [0, 0];
            }
        }
    }

    fn write(self, name: &[u8], directory: bool, number: u32, out: &mut Vec<u8>) {
        match self {
            Naming::Plain => plain(name, directory, number, out),
            Naming::Joliet => joliet(name, number, out),
        }
    }
}

/// What tells a name from its neighbours: `_` and digits.
fn mark(number: u32, into: &mut [u8; 12]) -> &[u8] {
    if number == 0 {
        return &[];
    }
    let mut rest = into.as_mut_slice();
    // A number has at most ten digits.
    let _ = write!(rest, "_{number}");
    let unused = rest.len();
    into.get(..into.len().saturating_sub(unused)).unwrap_or_default()
}

fn d_character(byte: u8) -> u8 {
    let upper = byte.to_ascii_uppercase();
    if upper.is_ascii_uppercase() || upper.is_ascii_digit() { upper } else { b'_' }
}

/// Adds the name in d-characters; of a file with its extension.
fn plain(name: &[u8], directory: bool, number: u32, out: &mut Vec<u8>) {
    let (stem, extension) = if directory { (name, [].as_slice()) } else { split(name) };
    let extension = extension.get(..EXTENSION_MOST).unwrap_or(extension);
    let most = if directory { DIRECTORY_MOST } else { FILE_MOST };
    let digits = &mut [0; 12];
    let mark = mark(number, digits);
    let room = most.saturating_sub(extension.len()).saturating_sub(mark.len());
    out.extend(stem.iter().take(room).map(|&byte| d_character(byte)));
    out.extend_from_slice(mark);
    if !extension.is_empty() {
        out.push(b'.');
        out.extend(extension.iter().map(|&byte| d_character(byte)));
    }
}

/// A name without its extension, and the extension. What begins with its only dot has none.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0);
    match dot.and_then(|dot| name.split_at_checked(dot)) {
        Some((stem, [_, extension @ ..])) if !extension.is_empty() => (stem, extension),
        _ => (name, &[]),
    }
}

/// Adds the name in UTF-16, big-endian. What is no UTF-8, control characters, what Joliet forbids and dots at the end
/// become `_`: readers leave such dots out.
fn joliet(name: &[u8], number: u32, out: &mut Vec<u8>) {
    let start = out.len();
    spell(name, number, out);
    let units = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<2>().0;
    for unit in units.iter_mut().rev().take_while(|unit| **unit == JOLIET_DOT) {
        *unit = [0, b'_'];
    }
}

fn spell(name: &[u8], number: u32, out: &mut Vec<u8>) {
    let start = out.len();
    if name.is_ascii() && name.len() <= JOLIET_MOST && number == 0 {
        out.extend(name.iter().flat_map(|&byte| [0, if is_joliet(byte.into()) { byte } else { b'_' }]));
        return;
    }
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            let shown = if is_joliet(character) { character } else { '_' };
            for unit in shown.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(&unit.to_be_bytes());
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(&[0, b'_']);
        }
    }
    if number > 0 || out.len().saturating_sub(start) > JOLIET_MOST.saturating_mul(2) {
        shorten(start, number, out);
    }
}

fn is_joliet(character: char) -> bool {
    !matches!(character, '\0'..='\x1f' | '\x7f' | '*' | '/' | ':' | ';' | '?' | '\\')
}

/// Cuts the stem of the Joliet name that begins at `start`, so that the number and a short extension fit.
fn shorten(start: usize, number: u32, out: &mut Vec<u8>) {
    let name = out.split_off(start.min(out.len()));
    let units = name.as_chunks::<2>().0;
    let dot = units.iter().rposition(|&unit| unit == JOLIET_DOT);
    let short = |dot: &usize| *dot > 0 && units.len().saturating_sub(*dot) <= JOLIET_EXTENSION_MOST;
    let (stem, extension) = units.split_at(dot.filter(short).unwrap_or(units.len()));
    let digits = &mut [0; 12];
    let mark = mark(number, digits);
    let room = JOLIET_MOST.saturating_sub(extension.len()).saturating_sub(mark.len());
    let mut stem = stem.get(..room).unwrap_or(stem);
    // No half of a pair is left behind.
    if let [rest @ .., [0xd8..=0xdb, _]] = stem {
        stem = rest;
    }
    out.extend_from_slice(stem.as_flattened());
    out.extend(mark.iter().flat_map(|&byte| [0, byte]));
    out.extend_from_slice(extension.as_flattened());
}

/// A volume's identifier in d-characters: at most 32.
pub(super) fn volume(name: &[u8]) -> [u8; 32] {
    let mut identifier = [b' '; 32];
    for (to, &from) in identifier.iter_mut().zip(name) {
        *to = d_character(from);
    }
    identifier
}

/// A volume's identifier in UTF-16: at most 16 units.
pub(super) fn joliet_volume(name: &[u8]) -> [u8; 32] {
    let (mut identifier, mut units) = ([0; 32], Vec::new());
    joliet(name, 0, &mut units);
    let filled = units.as_chunks::<2>().0.iter().copied().chain(std::iter::repeat([0, b' ']));
    let mut filled = filled.take(16).collect::<Vec<_>>();
    if let Some(last @ [0xd8..=0xdb, _]) = filled.last_mut() {
        *last = [0, b' '];
    }
    for (to, from) in identifier.as_chunks_mut::<2>().0.iter_mut().zip(filled) {
        *to = from;
    }
    identifier
}
