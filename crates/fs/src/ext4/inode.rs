//! Inodes.

use super::cache::Bytes;
use super::checksum::Crc32c;
use super::feature::{Incompat, RoCompat};
use super::layout::{
    CASEFOLD_FL, COMPR_FL, ENCRYPT_FL, GOOD_OLD_INODE_SIZE, HUGE_FILE_FL, INDEX_FL, INLINE_DATA_FL,
    INODE_CHECKSUM_HI_AT, INODE_CHECKSUM_LO_AT, RawExtra, RawInode,
};
use super::volume::Volume;
use crate::{Inode, Kind, Stat, Time};
use chart::{Error, Result, Wait};
use zerocopy::FromBytes;
use zerocopy::little_endian::U16;

/// An inode as it was read and checked.
pub(super) struct Node {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) raw: RawInode,
    extra: RawExtra,
    /// All of it.
    pub(super) bytes: Bytes,
    /// Where it begins on the disk.
    pub(super) at: u64,
    /// What checksums of what belongs to it begin with.
    pub(super) seed: Crc32c,
    /// How many bytes its content has.
    pub(super) len: u64,
}

impl Volume {
    /// Reads and checks an inode that somebody names.
    pub(super) fn inode(&self, inode: Inode) -> Result<Node> {
        let sb = &self.superblock;
        let absent = || Error::corrupt(format!("inode {} is named and does not exist", inode.0));
        let number = u32::try_from(inode.0).map_err(|_| absent())?;
        if number == 0 || number > sb.inodes_count {
            return Err(absent());
        }
        let index = number.wrapping_sub(1);
        let within_group = index.checked_rem(sb.inodes_per_group).ok_or_else(absent)?;
        let group = index.checked_div(sb.inodes_per_group).ok_or_else(absent)?;
        let table = self.inode_table(group.into())?;
        let size = u64::try_from(sb.inode_size).unwrap_or(u64::MAX);
        let within = u64::from(within_group).saturating_mul(size);
        if !sb.holds(table, within.saturating_add(size).div_ceil(sb.block_size)) {
            return Err(Error::corrupt(format!("inode {number} lies behind the end of the file system")));
        }
        let at = self.at(table).saturating_add(within);
        let bytes = self.tables.read(at, size, Wait::Allowed)?;
        self.decode(number, at, bytes).map_err(|e| e.at(at))
    }

    fn decode(&self, number: u32, at: u64, bytes: Bytes) -> Result<Node> {
        let corrupt = |what: &str| Error::corrupt(format!("inode {number} {what}"));
        let (raw, rest) = RawInode::read_from_prefix(&bytes).map_err(|_| corrupt("is cut short"))?;
        let extra = extra(rest).ok_or_else(|| corrupt("is longer than it can be"))?;
        let seed = self.superblock.seed.with_u32(number).with_u32(raw.generation.get());
        if self.superblock.has_metadata_csum() && !matches(&raw, &extra, seed, &bytes) {
            return Err(corrupt("does not match its checksum"));
        }
        if raw.links_count.get() == 0 {
            return Err(corrupt("is named and was deleted"));
        }
        let kind = kind(raw.mode.get()).ok_or_else(|| corrupt("is of no kind"))?;
        let wide = kind == Kind::File || self.superblock.incompat.has(Incompat::LARGEDIR);
        let high = if wide { u64::from(raw.size_high.get()) } else { 0 };
        let len = high << 32 | u64::from(raw.size_lo.get());
        // Blocks of a file are counted in 32 bits. What is longer would be petabytes of holes to whoever walks it.
        if len > self.superblock.block_size.saturating_mul(1 << 32) {
            return Err(corrupt("has an impossible length"));
        }
        Ok(Node { number, kind, raw, extra, bytes, at, seed, len })
    }

    /// What is told of an inode.
    pub(super) fn stat(&self, node: &Node) -> Stat {
        let raw = &node.raw;
        let join = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
        let device = matches!(node.kind, Kind::CharacterDevice | Kind::BlockDevice);
        Stat {
            inode: Inode(node.number.into()),
            kind: node.kind,
            mode: raw.mode.get() & 0o7777,
            uid: join(raw.uid_high.get(), raw.uid.get()),
            gid: join(raw.gid_high.get(), raw.gid.get()),
            links: raw.links_count.get().into(),
            len: node.len,
            stored: Some(self.stored(node)),
            accessed: time(raw.atime.get(), node.extra.atime_extra.get()),
            modified: time(raw.mtime.get(), node.extra.mtime_extra.get()),
            changed: time(raw.ctime.get(), node.extra.ctime_extra.get()),
            born: node.has_birth().then(|| time(node.extra.crtime.get(), node.extra.crtime_extra.get())),
            device: device.then(|| node.device()),
        }
    }

    /// How many bytes are stored for an inode.
    fn stored(&self, node: &Node) -> u64 {
        let huge = self.superblock.ro_compat.has(RoCompat::HUGE_FILE);
        let high = if huge { u64::from(node.raw.blocks_high.get()) } else { 0 };
        let count = high << 32 | u64::from(node.raw.blocks_lo.get());
        let unit = if huge && node.has(HUGE_FILE_FL) { self.superblock.block_size } else { 512 };
        // A file that is in its inode takes no block, but is told to take sectors, so that nobody thinks it empty.
        let inline = if node.is_inline() && node.kind == Kind::File { node.len.div_ceil(512) } else { 0 };
        count.saturating_mul(unit).saturating_add(inline.saturating_mul(512))
    }
}

impl Node {
    /// Whether it has this flag.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.raw.flags.get() & flag != 0
    }

    /// Whether its content is in the inode itself.
    pub(super) fn is_inline(&self) -> bool {
        self.has(INLINE_DATA_FL)
    }

    /// Whether it is a directory with an index that can be used: of one that ignores case or is encrypted the
    /// hashes are not those of the names.
    pub(super) fn is_indexed(&self) -> bool {
        self.has(INDEX_FL) && !self.has(CASEFOLD_FL | ENCRYPT_FL | INLINE_DATA_FL)
    }

    /// Refuses a content that cannot be understood without a key, or at all.
    pub(super) fn readable(&self) -> Result<()> {
        let what = if self.has(ENCRYPT_FL) {
            "is encrypted (the feature encrypt), and its key is not here"
        } else if self.has(COMPR_FL) {
            "is compressed (by a patch of ext2 that is not understood)"
        } else {
            return Ok(());
        };
        Err(Error::unsupported(format!("inode {} {what}", self.number)))
    }

    /// Where the part behind the fixed fields begins, of an inode that is longer than those of ext2.
    pub(super) fn behind_fields(&self) -> usize {
        GOOD_OLD_INODE_SIZE.saturating_add(self.extra.extra_isize.get().into())
    }

    fn has_birth(&self) -> bool {
        self.extra.extra_isize.get() >= 0x94_u16.saturating_sub(0x80)
    }

    fn device(&self) -> (u32, u32) {
        let [a, b, c, d, e, f, g, h, ..] = self.raw.block;
        let old = u32::from_le_bytes([a, b, c, d]);
        if old != 0 {
            return (old >> 8 & 0xff, old & 0xff);
        }
        let new = u32::from_le_bytes([e, f, g, h]);
        (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xfff00)
    }
}

/// The fields behind the first 128 bytes, zeros where they are not valid. None where their length is impossible.
fn extra(rest: &[u8]) -> Option<RawExtra> {
    if rest.is_empty() {
        return Some(RawExtra::default());
    }
    let (len, _) = U16::read_from_prefix(rest).ok()?;
    let len = usize::from(len.get());
    let valid = rest.get(..len).filter(|_| len.is_multiple_of(4))?;
    let mut fields = [0; size_of::<RawExtra>()];
    for (field, stored) in fields.iter_mut().zip(valid) {
        *field = *stored;
    }
    Some(zerocopy::transmute!(fields))
}

fn matches(raw: &RawInode, extra: &RawExtra, seed: Crc32c, bytes: &[u8]) -> bool {
    let (fixed, rest) = bytes.split_at_checked(GOOD_OLD_INODE_SIZE).unwrap_or((bytes, &[]));
    let crc = seed.with_but(fixed, INODE_CHECKSUM_LO_AT, 2);
    let high_at = INODE_CHECKSUM_HI_AT.saturating_sub(GOOD_OLD_INODE_SIZE);
    let has_high = usize::from(extra.extra_isize.get()) >= high_at.saturating_add(2);
    if !has_high {
        return crc.with(rest).low() == raw.checksum_lo.get();
    }
    let crc = crc.with_but(rest, high_at, 2);
    (crc.low(), crc.high()) == (raw.checksum_lo.get(), extra.checksum_hi.get())
}

fn kind(mode: u16) -> Option<Kind> {
    Some(match mode >> 12 {
        0x1 => Kind::Fifo,
        0x2 => Kind::CharacterDevice,
        0x4 => Kind::Directory,
        0x6 => Kind::BlockDevice,
        0x8 => Kind::File,
        0xa => Kind::Symlink,
        0xc => Kind::Socket,
        _ => return None,
    })
}

/// A moment: 32 bits of seconds with a sign, two more above them, and nanoseconds.
pub(super) fn time(seconds: u32, extra: u32) -> Time {
    let epoch = i64::from(extra & 3) << 32;
    let seconds = i64::from(seconds.cast_signed()).saturating_add(epoch);
    Time { seconds, nanos: (extra >> 2).min(999_999_999) }
}
