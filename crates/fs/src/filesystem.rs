//! What every file system answers, whatever it is.

use chart::{Disk, Result};
/// A directory of the host has the same kinds and moments.
pub use io::tree::{Kind, Time};
use std::sync::Arc;

/// A file, a directory or whatever else has attributes, by the number its file system gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(pub u64);

/// What is known of an inode without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which one it is.
    pub inode: Inode,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky: the low twelve.
    pub mode: u16,
    /// Who owns it.
    pub uid: u32,
    /// Which group does.
    pub gid: u32,
    /// How many names it has.
    pub links: u64,
    /// How many bytes it has.
    pub len: u64,
    /// How many bytes are stored for it, where that is known.
    pub stored: Option<u64>,
    /// When it was read last.
    pub accessed: Time,
    /// When its content changed last.
    pub modified: Time,
    /// When its attributes changed last.
    pub changed: Time,
    /// When it was made, where that is noted.
    pub born: Option<Time>,
    /// Which device, of a device: major and minor.
    pub device: Option<(u32, u32)>,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name, as it is stored: any bytes but `/` and NUL, and never empty, `.` or `..`.
    pub name: &'a [u8],
    /// Whose name it is.
    pub inode: Inode,
    /// What that is, where the directory says so.
    pub kind: Option<Kind>,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its whole name, with the namespace: `user.comment`, `security.capability`.
    pub name: Vec<u8>,
    /// Its value, as `getxattr` would give it.
    pub value: Vec<u8>,
}

/// A file system on a disk, to be read.
///
/// Its bytes are hostile: what does not hold together is [`Corrupt`](chart::Kind::Corrupt), what is not
/// understood [`Unsupported`](chart::Kind::Unsupported), and neither costs more than the names of limits allow.
pub trait FileSystem: Send + Sync {
    /// What kind it is: `ext4`.
    fn kind(&self) -> &'static str;

    /// What it calls itself, or nothing.
    fn label(&self) -> String;

    /// Its root directory.
    fn root(&self) -> Inode;

    /// What an inode is.
    fn stat(&self, inode: Inode) -> Result<Stat>;

    /// Tells every name in a directory, in the order of the directory, but for `.` and `..`. An error of `each`
    /// ends it. Whoever is told may ask the file system again.
    fn list(&self, directory: Inode, each: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()>;

    /// Whose name this is in a directory: by its index, where it has one.
    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Option<Inode>>;

    /// Where a symbolic link leads.
    fn target(&self, link: Inode) -> Result<Vec<u8>>;

    /// The extended attributes of an inode.
    fn attributes(&self, inode: Inode) -> Result<Vec<Attribute>>;

    /// The bytes of a regular file: a disk that is as long as the file, over the disk that the file system lies
    /// in. Ranges that the file leaves out are holes, those that were allocated and never written are zeros.
    fn file(&self, inode: Inode) -> Result<Arc<Disk>>;
}
