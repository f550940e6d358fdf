//! What a file's bytes say it is: the one place that knows the marks of formats.
//!
//! Those that this build does not read are known too. A file that bears such a mark is no raw disk, and taking it
//! for one would show its tables, or its ciphertext, as a disk.

#[cfg(test)]
mod tests;

use crate::{qcow2, vdi};
use chart::file::Written;
use chart::{Result, Source, Wait};

/// So many bytes are looked at from the beginning, and as many from the end.
pub const LOOK: u64 = 512;

/// What a file says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// QEMU's own format.
    Qcow2,
    /// VirtualBox's.
    Vdi,
    /// A chart that was written down.
    Chart,
    /// A format that is not read here, by its name.
    Foreign(&'static str),
}

/// Where a mark is, what it is, and whose: the name that the format's specification goes by.
type Sign = (usize, &'static [u8], &'static str);

/// Marks in the first bytes of a file.
const HEAD: &[Sign] = &[
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK"),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", "VMDK (SE sparse)"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (0, b"QED\0", "QED"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
    (0, b"Bochs Virtual HD Image", "Bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
    (0, b"EVF\x09\x0d\x0a\xff\0", "EWF (EnCase)"),
    (0, b"EVF2\x0d\x0a\x81\0", "EWF (EnCase)"),
    (0, b"LUKS\xba\xbe", "LUKS (an encrypted container)"),
    (257, b"ustar", "tar (of which OVA is one)"),
    (0, b"\xfd7zXZ\0", "xz (compressed)"),
    (0, b"\x28\xb5\x2f\xfd", "zstd (compressed)"),
    (0, b"\x1f\x8b\x08", "gzip (compressed)"),
];

/// Marks in the last 512 bytes, which such files end with.
const FOOT: &[Sign] = &[(0, b"conectix", "VHD"), (0, b"koly", "UDIF (DMG)")];

/// What the bytes of a file say it is. Nothing: then it may be a raw disk, which bears no mark.
pub fn probe(source: &dyn Source) -> Result<Option<Mark>> {
    let len = source.len();
    let mut bytes = [0; 512];
    let Some(head) = bytes.get_mut(..crate::field::to_index(len.min(LOOK))) else { return Ok(None) };
    source.read_at(0, head, Wait::Allowed)?;
    if let Some(mark) = of_head(head) {
        return Ok(Some(mark));
    }
    let Some(foot) = len.checked_sub(LOOK) else { return Ok(None) };
    source.read_at(foot, &mut bytes, Wait::Allowed)?;
    Ok(find(FOOT, &bytes))
}

/// What the first bytes of a file say it is.
pub fn of_head(head: &[u8]) -> Option<Mark> {
    if qcow2::probe(head) {
        return Some(Mark::Qcow2);
    }
    if vdi::probe(head) {
        return Some(Mark::Vdi);
    }
    if Written::probe(head) {
        return Some(Mark::Chart);
    }
    find(HEAD, head)
}

fn find(signs: &[Sign], bytes: &[u8]) -> Option<Mark> {
    let bears = |&&(at, mark, _): &&Sign| bytes.get(at..).is_some_and(|rest| rest.starts_with(mark));
    signs.iter().find(bears).map(|&(_, _, name)| Mark::Foreign(name))
}
