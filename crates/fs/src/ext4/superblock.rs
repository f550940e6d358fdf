//! The superblock: what a file system says of itself, checked.

use super::checksum::Crc32c;
use super::feature::{Compat, Incompat, RoCompat};
use super::layout::{
    CHECKSUM_CRC32C, FLAGS_UNSIGNED_HASH, GOOD_OLD_FIRST_INO, GOOD_OLD_INODE_SIZE, MAGIC, MAX_BLOCK_BITS,
    MAX_DESC_SIZE, MIN_BLOCK_BITS, MIN_DESC_SIZE, MIN_DESC_SIZE_64BIT, ROOT_INO, RawSuperblock,
    SUPERBLOCK_AT, SUPERBLOCK_CHECKSUM_AT, SUPERBLOCK_LEN,
};
use chart::{Disk, Error, Result, Wait};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// What is known of a file system as a whole.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) compat: Compat,
    pub(super) incompat: Incompat,
    pub(super) ro_compat: RoCompat,
    /// A block has so many bytes: a power of two.
    pub(super) block_size: u64,
    pub(super) blocks_count: u64,
    pub(super) first_data_block: u64,
    pub(super) blocks_per_group: u64,
    pub(super) inodes_count: u32,
    pub(super) inodes_per_group: u32,
    /// The first inode that is not reserved.
    pub(super) first_ino: u32,
    /// An inode has so many bytes: a power of two.
    pub(super) inode_size: usize,
    pub(super) desc_size: u64,
    pub(super) first_meta_bg: u64,
    pub(super) backup_bgs: [u64; 2],
    pub(super) uuid: [u8; 16],
    /// What checksums of metadata begin with.
    pub(super) seed: Crc32c,
    pub(super) hash_seed: [u32; 4],
    /// Names are hashed as unsigned bytes.
    pub(super) unsigned_hash: bool,
    pub(super) journal_inum: u32,
    pub(super) label: String,
}

/// Reads the bytes of the superblock; none where the disk is too short for one.
fn bytes(disk: &Disk) -> Result<Option<[u8; SUPERBLOCK_LEN]>> {
    let mut bytes = [0; SUPERBLOCK_LEN];
    if chart::check_range(disk.len(), SUPERBLOCK_AT, 1024).is_err() {
        return Ok(None);
    }
    disk.read_at(SUPERBLOCK_AT, &mut bytes, Wait::Allowed)?;
    Ok(Some(bytes))
}

fn raw(bytes: &[u8]) -> Result<RawSuperblock> {
    let parsed = RawSuperblock::read_from_prefix(bytes).map(|(raw, _)| raw);
    parsed.map_err(|_| corrupt("superblock is cut short"))
}

fn corrupt(what: &'static str) -> Error {
    Error::corrupt(what).at(SUPERBLOCK_AT)
}

/// Whether a disk has the mark of a superblock, and numbers in it that can be.
pub(super) fn probe(disk: &Disk) -> Result<bool> {
    let Some(bytes) = bytes(disk)? else { return Ok(false) };
    let raw = raw(&bytes)?;
    // Another one's journal has no inodes: that is known, to be refused by its name.
    let has_inodes = raw.inodes_per_group.get() != 0;
    let plausible = raw.log_block_size.get() <= MAX_BLOCK_BITS.saturating_sub(MIN_BLOCK_BITS)
        && (has_inodes || Incompat(raw.feature_incompat.get()).has(Incompat::JOURNAL_DEV))
        && raw.blocks_per_group.get() != 0
        && raw.rev_level.get() <= 1;
    Ok(raw.magic.get() == MAGIC && plausible)
}

impl Superblock {
    /// Reads it from a disk.
    pub(super) fn read(disk: &Disk) -> Result<Superblock> {
        let none = || Error::invalid(format!("{} holds no ext2, ext3 or ext4 file system", disk.name()));
        let bytes = bytes(disk)?.ok_or_else(none)?;
        let raw = raw(&bytes)?;
        if raw.magic.get() != MAGIC {
            return Err(none());
        }
        let superblock = Superblock::decode(&raw)?;
        superblock.check(&raw, &bytes)?;
        Ok(superblock)
    }

    fn decode(raw: &RawSuperblock) -> Result<Superblock> {
        let dynamic = raw.rev_level.get() > 0;
        let features = |bits: u32| if dynamic { bits } else { 0 };
        let incompat = Incompat(features(raw.feature_incompat.get()));
        let ro_compat = RoCompat(features(raw.feature_ro_compat.get()));
        incompat.check()?;
        let bits =
            raw.log_block_size.get().checked_add(MIN_BLOCK_BITS).filter(|bits| *bits <= MAX_BLOCK_BITS);
        let block_size = 1_u64 << bits.ok_or_else(|| corrupt("superblock has blocks of more than 64 KiB"))?;
        let wide = incompat.has(Incompat::BIT64);
        let high = if wide { u64::from(raw.blocks_count_hi.get()) } else { 0 };
        let seed = match incompat.has(Incompat::CSUM_SEED) {
            true => Crc32c(raw.checksum_seed.get()),
            false => Crc32c::START.with(&raw.uuid),
        };
        let name = raw.volume_name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Superblock {
            compat: Compat(features(raw.feature_compat.get())),
            incompat,
            ro_compat,
            block_size,
            blocks_count: high << 32 | u64::from(raw.blocks_count_lo.get()),
            first_data_block: raw.first_data_block.get().into(),
            blocks_per_group: raw.blocks_per_group.get().into(),
            inodes_count: raw.inodes_count.get(),
            inodes_per_group: raw.inodes_per_group.get(),
            first_ino: if dynamic { raw.first_ino.get() } else { GOOD_OLD_FIRST_INO },
            inode_size: if dynamic { raw.inode_size.get().into() } else { GOOD_OLD_INODE_SIZE },
            desc_size: if wide { raw.desc_size.get().into() } else { MIN_DESC_SIZE },
            first_meta_bg: raw.first_meta_bg.get().into(),
            backup_bgs: raw.backup_bgs.map(|bg| bg.get().into()),
            uuid: raw.uuid,
            seed,
            hash_seed: raw.hash_seed.map(U32::get),
            unsigned_hash: raw.flags.get() & FLAGS_UNSIGNED_HASH != 0,
            journal_inum: raw.journal_inum.get(),
            label: String::from_utf8_lossy(name).into_owned(),
        })
    }

    fn check(&self, raw: &RawSuperblock, bytes: &[u8; SUPERBLOCK_LEN]) -> Result<()> {
        if self.has_metadata_csum() {
            if raw.checksum_type != CHECKSUM_CRC32C {
                return Err(Error::unsupported("this ext4 file system has checksums other than crc32c"));
            }
            let (before, stored) = bytes.split_at(SUPERBLOCK_CHECKSUM_AT);
            if Crc32c::START.with(before).0.to_le_bytes() != stored {
                return Err(corrupt("superblock does not match its checksum"));
            }
        }
        let bits_of_a_block = self.block_size.saturating_mul(8);
        // A group's bitmap is one block, of clusters where these are not blocks: up to 2^31 bytes each.
        let group = 1..=bits_of_a_block.saturating_mul(1 << 21);
        if !group.contains(&self.blocks_per_group) {
            return Err(corrupt("superblock has impossible groups of blocks"));
        }
        if self.first_data_block > 1 || self.first_data_block >= self.blocks_count {
            return Err(corrupt("superblock has an impossible number of blocks"));
        }
        if self.blocks_count.checked_mul(self.block_size).is_none() {
            return Err(corrupt("superblock has an impossible number of blocks"));
        }
        let inode_sizes = GOOD_OLD_INODE_SIZE..=usize::try_from(self.block_size).unwrap_or(usize::MAX);
        if !inode_sizes.contains(&self.inode_size) || !self.inode_size.is_power_of_two() {
            return Err(corrupt("superblock has inodes of an impossible size"));
        }
        let room = self.groups().saturating_mul(self.inodes_per_group.into());
        let inodes = 1..=bits_of_a_block;
        if !inodes.contains(&self.inodes_per_group.into())
            || u64::from(self.inodes_count) > room
            || self.inodes_count < ROOT_INO
        {
            return Err(corrupt("superblock has an impossible number of inodes"));
        }
        let wide = self.incompat.has(Incompat::BIT64);
        let descriptors = MIN_DESC_SIZE_64BIT..=MAX_DESC_SIZE;
        if wide && (!descriptors.contains(&self.desc_size) || !self.desc_size.is_power_of_two()) {
            return Err(corrupt("superblock has group descriptors of an impossible size"));
        }
        Ok(())
    }

    /// How many groups there are.
    pub(super) fn groups(&self) -> u64 {
        self.blocks_count.saturating_sub(self.first_data_block).div_ceil(self.blocks_per_group.max(1))
    }

    /// Whether all metadata has a crc32c.
    pub(super) fn has_metadata_csum(&self) -> bool {
        self.ro_compat.has(RoCompat::METADATA_CSUM)
    }

    /// Whether blocks `[start, start + len)` are blocks of this file system, and not its very first.
    pub(super) fn holds(&self, start: u64, len: u64) -> bool {
        start > self.first_data_block && start.checked_add(len).is_some_and(|end| end <= self.blocks_count)
    }

    /// What people call a file system with these features.
    pub(super) fn kind(&self) -> &'static str {
        if self.incompat.0 & !Incompat::EXT3 != 0 || self.ro_compat.0 & !RoCompat::EXT3 != 0 {
            "ext4"
        } else if self.compat.has(Compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }
}
