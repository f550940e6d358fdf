//! A chart written down: binary and checksummed for keeping (`.chart`), JSON for reading and editing.
//!
//! A written chart names its sources and, where it knows it, their identity, so that whoever opens it can tell a
//! source that changed since from the one that was charted. What lies nowhere else, since it was computed, it holds
//! itself.

mod binary;
mod json;
mod path;
mod sources;
#[cfg(test)]
mod tests;

pub use binary::{MAGIC, MAX_EXTENTS, MAX_NAME, MAX_SOURCES};
pub use sources::{FamilyRecord, MAX_INLINE, MAX_MEMBERS, MAX_PATH, MAX_PATHS, Outside, SourceRecord};

use crate::{Result, Table};

/// A chart and what it needs to become a disk again.
#[derive(Clone, Debug)]
pub struct Written {
    /// The smallest unit a guest should address.
    pub logical_block: u32,
    /// The sources its extents name, by their ids.
    pub sources: Vec<SourceRecord>,
    /// The names of the codecs its frames name, by their ids.
    pub codecs: Vec<String>,
    /// Where everything lives.
    pub table: Table,
}

impl Written {
    /// As bytes of a `.chart` file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        binary::encode(self)
    }

    /// From the bytes of a `.chart` file. They are not trusted.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        binary::decode(bytes)
    }

    /// As JSON text.
    pub fn to_json(&self) -> Result<String> {
        json::encode(self)
    }

    /// From JSON text. It is not trusted.
    pub fn from_json(text: &str) -> Result<Self> {
        json::decode(text)
    }

    /// From the bytes of a file in either form. They are not trusted.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.starts_with(&MAGIC) => Self::from_json(text),
            _ => Self::from_bytes(bytes),
        }
    }

    /// Whether these bytes begin a chart that was written down: the binary form, or JSON whose first key is
    /// `portolan_chart`.
    pub fn probe(head: &[u8]) -> bool {
        let object = head.trim_ascii_start().strip_prefix(b"{");
        let json = object.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"portolan_chart\""));
        json || head.starts_with(&MAGIC)
    }
}
