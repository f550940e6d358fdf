//! Features: what a file system has that others have not, and which of them a reader must know.

use chart::{Error, Result};

/// `s_feature_incompat`: who does not know one of these cannot read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Incompat(pub(super) u32);

/// `s_feature_ro_compat`: who does not know one of these cannot write, but read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoCompat(pub(super) u32);

/// `s_feature_compat`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compat(pub(super) u32);

macro_rules! bits {
    ($of:ident: $($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl $of {
            $($(#[$doc])* pub(super) const $name: u32 = $bit;)*

            /// Whether it has this one.
            pub(super) fn has(self, bit: u32) -> bool {
                self.0 & bit != 0
            }
        }
    };
}

bits! { Compat:
    /// There is a journal.
    HAS_JOURNAL = 0x4;
    /// Directories may have an index.
    DIR_INDEX = 0x20;
    /// Copies of the superblock are in two groups that it names.
    SPARSE_SUPER2 = 0x200;
}

bits! { Incompat:
    /// Compressed files.
    COMPRESSION = 0x1;
    /// Directory entries tell what they name.
    FILETYPE = 0x2;
    /// The journal must be replayed.
    RECOVER = 0x4;
    /// No file system but another one's journal.
    JOURNAL_DEV = 0x8;
    /// Group descriptors are spread over the disk.
    META_BG = 0x10;
    /// Files may be mapped by extents.
    EXTENTS = 0x40;
    /// Block numbers have more than 32 bits.
    BIT64 = 0x80;
    /// A block tells which host has it mounted.
    MMP = 0x100;
    /// Bitmaps and inode tables lie together.
    FLEX_BG = 0x200;
    /// Large extended attributes are in inodes of their own.
    EA_INODE = 0x400;
    /// Directory entries may hold more than a name.
    DIRDATA = 0x1000;
    /// The seed of checksums is noted.
    CSUM_SEED = 0x2000;
    /// Directories may be longer than 2 GiB, and their indexes deeper.
    LARGEDIR = 0x4000;
    /// Small files are in their inodes.
    INLINE_DATA = 0x8000;
    /// Files may be encrypted.
    ENCRYPT = 0x1_0000;
    /// Names may be looked up whatever their case.
    CASEFOLD = 0x2_0000;
    /// What is understood. Encryption is, file by file: whatever is not encrypted can be read.
    KNOWN = Self::FILETYPE | Self::RECOVER | Self::META_BG | Self::EXTENTS | Self::BIT64 | Self::MMP
        | Self::FLEX_BG | Self::EA_INODE | Self::CSUM_SEED | Self::LARGEDIR | Self::INLINE_DATA | Self::ENCRYPT
        | Self::CASEFOLD;
    /// What ext3 knows too.
    EXT3 = Self::FILETYPE | Self::RECOVER | Self::META_BG;
}

bits! { RoCompat:
    /// Copies of the superblock are in few groups.
    SPARSE_SUPER = 0x1;
    /// Files may be longer than 2 GiB.
    LARGE_FILE = 0x2;
    /// Files may have more than 2^32 sectors.
    HUGE_FILE = 0x8;
    /// Group descriptors have a crc16.
    GDT_CSUM = 0x10;
    /// All metadata has a crc32c.
    METADATA_CSUM = 0x400;
    /// What ext3 knows too; 4 was never used.
    EXT3 = Self::SPARSE_SUPER | Self::LARGE_FILE | 0x4;
}

/// The features that are refused by name.
const REFUSED: &[(u32, &str)] = &[
    (Incompat::COMPRESSION, "compression"),
    (Incompat::JOURNAL_DEV, "journal_dev: this is another file system's journal"),
    (Incompat::DIRDATA, "dirdata"),
];

impl Incompat {
    /// Refuses what is not understood, by name where it has one.
    pub(super) fn check(self) -> Result<()> {
        let unknown = self.0 & !Self::KNOWN;
        if unknown == 0 {
            return Ok(());
        }
        let names: Vec<&str> =
            REFUSED.iter().filter(|(bit, _)| unknown & bit != 0).map(|(_, name)| *name).collect();
        let rest = REFUSED.iter().fold(unknown, |rest, (bit, _)| rest & !bit);
        let mut what = names.join(", ");
        if rest != 0 {
            let and = if what.is_empty() { "" } else { ", " };
            what = format!("{what}{and}{rest:#x}");
        }
        Err(Error::unsupported(format!("this ext4 file system has features that are not read here: {what}")))
    }
}
