//! Extended attributes: in the inode behind its fields, in a block, and large ones in inodes of their own.

use super::acl;
use super::chart;
use super::checksum::Crc32c;
use super::feature::Incompat;
use super::inode::Node;
use super::layout::{
    EA_INODE_FL, XATTR_CHECKSUM_AT, XATTR_ENTRY_LEN, XATTR_HEADER_LEN, XATTR_MAGIC, XattrEntry, XattrHeader,
};
use super::volume::Volume;
use crate::{Attribute, Inode};
use ::chart::{Error, Result, Wait};
use std::sync::Arc;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// No value is longer, as system calls have it.
const MAX_VALUE_LEN: u32 = 64 << 10;
/// The namespace of what only the file system itself looks at.
const INDEX_SYSTEM: u8 = 7;
/// The name, in that namespace, of the rest of an inline content.
const INLINE_NAME: &[u8] = b"data";

/// What an attribute's namespace is called; none for those that are not shown.
fn prefix(index: u8) -> Option<&'static str> {
    Some(match index {
        1 => "user.",
        2 => "system.posix_acl_access",
        3 => "system.posix_acl_default",
        4 => "trusted.",
        6 => "security.",
        10 => "gnu.",
        _ => return None,
    })
}

/// An attribute as it is stored.
struct Stored<'a> {
    raw: XattrEntry,
    name: &'a [u8],
}

/// A list of attributes: where it is, and what its values are placed by.
struct List<'a> {
    number: u32,
    entries: &'a [u8],
    values: &'a [u8],
}

impl<'a> List<'a> {
    fn wrong(&self, what: &str) -> Error {
        Error::corrupt(format!("inode {} has {what}", self.number))
    }

    /// Tells every attribute. There are at most as many as fit.
    fn each(&self, told: &mut dyn FnMut(Stored<'a>) -> Result<()>) -> Result<()> {
        let mut rest = self.entries;
        loop {
            // Four zeros are the end; there may be less behind them than an entry takes.
            match rest.first_chunk::<4>() {
                Some([0, 0, 0, 0]) => return Ok(()),
                Some(_) => {}
                None => return Err(self.wrong("a list of attributes without an end")),
            }
            let cut = || self.wrong("an attribute that is cut short");
            let (raw, behind) = XattrEntry::read_from_prefix(rest).map_err(|_| cut())?;
            let name = behind.get(..raw.name_len.into()).ok_or_else(cut)?;
            let len = XATTR_ENTRY_LEN.saturating_add(name.len()).next_multiple_of(4);
            rest = rest.get(len..).ok_or_else(cut)?;
            told(Stored { raw, name })?;
        }
    }

    /// Where a value that is stored here is among the values.
    fn place(&self, stored: &Stored<'_>) -> Result<std::ops::Range<usize>> {
        let start = usize::from(stored.raw.value_offs.get());
        let len = usize::try_from(stored.raw.value_size.get()).unwrap_or(usize::MAX);
        let range = start..start.saturating_add(len);
        match self.values.get(range.clone()) {
            Some(_) => Ok(range),
            // An empty value is nowhere.
            None if len == 0 => Ok(0..0),
            None => Err(self.wrong("an attribute whose value lies outside")),
        }
    }
}

/// The list in an inode, and where in the inode its values' places count from.
fn in_inode(node: &Node) -> Option<(List<'_>, usize)> {
    let start = node.behind_fields();
    let (magic, _) = U32::read_from_prefix(node.bytes.get(start..)?).ok()?;
    let start = start.checked_add(4)?;
    let entries = node.bytes.get(start..)?;
    (magic.get() == XATTR_MAGIC).then_some((List { number: node.number, entries, values: entries }, start))
}

/// All attributes that are shown.
pub(super) fn all(volume: &Arc<Volume>, node: &Node) -> Result<Vec<Attribute>> {
    let mut attributes = Vec::new();
    if let Some((list, _)) = in_inode(node) {
        show(volume, &list, &mut attributes)?;
    }
    let wide = volume.superblock.incompat.has(Incompat::BIT64);
    let high = if wide { u64::from(node.raw.file_acl_high.get()) } else { 0 };
    let number = high << 32 | u64::from(node.raw.file_acl_lo.get());
    if number != 0 {
        let block = volume.block(number, Wait::Allowed)?;
        let list = in_block(volume, node, number, &block).map_err(|e| e.at(volume.at(number)))?;
        show(volume, &list, &mut attributes)?;
    }
    Ok(attributes)
}

/// The list in a block.
fn in_block<'a>(volume: &Volume, node: &Node, number: u64, block: &'a [u8]) -> Result<List<'a>> {
    let wrong = |what: &str| Error::corrupt(format!("inode {}: block of attributes {what}", node.number));
    let (header, _) = XattrHeader::read_from_prefix(block).map_err(|_| wrong("is cut short"))?;
    if header.magic.get() != XATTR_MAGIC || header.blocks.get() != 1 {
        return Err(wrong("is none"));
    }
    let crc = volume.superblock.seed.with(&number.to_le_bytes()).with_but(block, XATTR_CHECKSUM_AT, 4);
    if volume.superblock.has_metadata_csum() && crc != Crc32c(header.checksum.get()) {
        return Err(wrong("does not match its checksum"));
    }
    let entries = block.get(XATTR_HEADER_LEN..).ok_or_else(|| wrong("is cut short"))?;
    Ok(List { number: node.number, entries, values: block })
}

/// Adds the attributes of a list, but for those that an earlier one had.
fn show(volume: &Arc<Volume>, list: &List<'_>, attributes: &mut Vec<Attribute>) -> Result<()> {
    list.each(&mut |stored| {
        let Some(prefix) = prefix(stored.raw.name_index) else { return Ok(()) };
        let name = [prefix.as_bytes(), stored.name].concat();
        let whole_name = prefix.ends_with('.') != stored.name.is_empty();
        if !whole_name || name.contains(&0) {
            return Err(list.wrong("an attribute with an impossible name"));
        }
        if attributes.iter().any(|attribute| attribute.name == name) {
            return Ok(());
        }
        let value = value(volume, list, &stored)?;
        let value = match prefix.ends_with('.') {
            true => value,
            false => acl::told(&value).ok_or_else(|| list.wrong("an access control list that is none"))?,
        };
        attributes.push(Attribute { name, value });
        Ok(())
    })
}

fn value(volume: &Arc<Volume>, list: &List<'_>, stored: &Stored<'_>) -> Result<Vec<u8>> {
    let size = stored.raw.value_size.get();
    if size > MAX_VALUE_LEN {
        return Err(list.wrong("an attribute that is longer than any can be"));
    }
    let inode = stored.raw.value_inum.get();
    if inode != 0 && volume.superblock.incompat.has(Incompat::EA_INODE) {
        return large_value(volume, list, inode, size);
    }
    Ok(list.values.get(list.place(stored)?).unwrap_or_default().to_vec())
}

/// The value that an inode of its own holds.
fn large_value(volume: &Arc<Volume>, list: &List<'_>, inode: u32, size: u32) -> Result<Vec<u8>> {
    let holder = volume.inode(Inode(inode.into()))?;
    if !holder.has(EA_INODE_FL) || holder.len != u64::from(size) {
        return Err(list.wrong("an attribute whose value is in an inode that does not hold it"));
    }
    let mut value = vec![0; usize::try_from(size).unwrap_or(0)];
    chart::file(volume, &holder)?.read_at(0, &mut value, Wait::Allowed)?;
    // Whoever wrote it noted its hash as the time of access; but not Lustre, which notes whose value it is.
    let lustre = holder.raw.mtime.get() == list.number;
    if !lustre && volume.superblock.seed.with(&value) != Crc32c(holder.raw.atime.get()) {
        return Err(list.wrong("an attribute that does not match its checksum"));
    }
    Ok(value)
}

impl Volume {
    /// Where in an inode the rest of its inline content is, and how long.
    pub(super) fn inline_value(&self, node: &Node) -> Result<Option<(usize, usize)>> {
        let Some((list, start)) = in_inode(node) else { return Ok(None) };
        let mut found = None;
        list.each(&mut |stored| {
            if stored.raw.name_index == INDEX_SYSTEM && stored.name == INLINE_NAME {
                if stored.raw.value_inum.get() != 0 {
                    return Err(list.wrong("an inline content that is elsewhere"));
                }
                let range = list.place(&stored)?;
                found = Some((start.saturating_add(range.start), range.len()));
            }
            Ok(())
        })?;
        Ok(found)
    }
}
