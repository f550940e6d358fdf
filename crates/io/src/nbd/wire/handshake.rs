//! The handshake: greeting, options and the replies to them ("Newstyle negotiation").

use super::fields::{put_counted, string_len, text};
use super::{ClientFlags, Fields, HandshakeFlags, Info, Opt, Rep, TransmissionFlags};
use chart::{Error, Result};

/// `NBDMAGIC`.
const INIT_PASSWD: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`.
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// What oldstyle servers say instead.
const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// How many zeroes follow [`ExportNameReply`] unless both sides agreed to leave them out.
pub const EXPORT_NAME_ZEROES: usize = 124;

/// The first thing a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What it can do.
    pub flags: HandshakeFlags,
}

impl Greeting {
    /// Its length.
    pub const LEN: usize = 18;

    /// Parses it.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let mut f = Fields::of("greeting", bytes);
        f.magic_u64(INIT_PASSWD)?;
        match f.u64()? {
            OPTION_MAGIC => Ok(Greeting { flags: HandshakeFlags(f.u16()?) }),
            OLDSTYLE_MAGIC => {
                Err(Error::unsupported("the NBD server speaks the oldstyle protocol, which is not supported"))
            }
            other => Err(f.wrong(&format!("its second magic number is {other:#x}"))),
        }
    }

    /// Appends it.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&INIT_PASSWD.to_be_bytes());
        out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&self.flags.0.to_be_bytes());
    }
}

impl ClientFlags {
    /// Their length.
    pub const LEN: usize = 4;

    /// Parses them. The server must drop a client that sets a flag it does not know.
    pub fn parse(bytes: [u8; Self::LEN]) -> Result<Self> {
        let flags = ClientFlags(u32::from_be_bytes(bytes));
        if ClientFlags::KNOWN.has(flags) {
            return Ok(flags);
        }
        Err(Error::corrupt(format!("NBD client flags: {:#x} has unknown bits", flags.0)))
    }

    /// Appends them.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
}

/// What precedes an option's payload. Client to server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option.
    pub option: Opt,
    /// How long its payload is.
    pub len: u32,
}

impl OptionHeader {
    /// Its length.
    pub const LEN: usize = 16;

    /// Parses it. The caller bounds `len` (see [`super::OPTION_PAYLOAD_MAX`]).
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let mut f = Fields::of("option", bytes);
        f.magic_u64(OPTION_MAGIC)?;
        Ok(OptionHeader { option: Opt(f.u32()?), len: f.u32()? })
    }

    /// Appends it with its payload.
    pub fn put(option: Opt, payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let len = u32::try_from(payload.len()).map_err(|_| Error::invalid("an NBD option is too long"))?;
        out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&option.0.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(payload);
        Ok(())
    }
}

/// What precedes the payload of a reply to an option. Server to client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// The option it answers.
    pub option: Opt,
    /// What it says.
    pub reply: Rep,
    /// How long its payload is.
    pub len: u32,
}

impl OptionReply {
    /// Its length.
    pub const LEN: usize = 20;

    /// Parses it. The caller bounds `len` (see [`super::OPTION_PAYLOAD_MAX`]).
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let mut f = Fields::of("option reply", bytes);
        f.magic_u64(OPTION_REPLY_MAGIC)?;
        Ok(OptionReply { option: Opt(f.u32()?), reply: Rep(f.u32()?), len: f.u32()? })
    }

    /// Appends it with its payload.
    pub fn put(option: Opt, reply: Rep, payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let len = u32::try_from(payload.len()).map_err(|_| Error::invalid("an NBD reply is too long"))?;
        out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        out.extend_from_slice(&option.0.to_be_bytes());
        out.extend_from_slice(&reply.0.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(payload);
        Ok(())
    }

    /// The words of an error reply's payload, for a person.
    pub fn message(payload: &[u8]) -> String {
        text(payload)
    }
}

/// The payload of [`Opt::INFO`] and [`Opt::GO`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Go {
    /// The export.
    pub name: String,
    /// What is asked about it.
    pub infos: Vec<Info>,
}

impl Go {
    /// Parses it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("OPT_GO", payload);
        let name = f.counted_string()?;
        let count = f.u16()?;
        let mut infos = Vec::new();
        for _ in 0..count {
            infos.push(Info(f.u16()?));
        }
        f.end()?;
        Ok(Go { name, infos })
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        put_counted(&self.name, out)?;
        let count = u16::try_from(self.infos.len()).map_err(|_| Error::invalid("too many NBD infos"))?;
        out.extend_from_slice(&count.to_be_bytes());
        for info in &self.infos {
            out.extend_from_slice(&info.0.to_be_bytes());
        }
        Ok(())
    }
}

/// The payload of [`Opt::LIST_META_CONTEXT`] and [`Opt::SET_META_CONTEXT`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MetaQuery {
    /// The export.
    pub name: String,
    /// What is asked for.
    pub queries: Vec<String>,
}

impl MetaQuery {
    /// Parses it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("meta context query", payload);
        let name = f.counted_string()?;
        let count = f.u32()?;
        let mut queries = Vec::new();
        // Bounded by the payload: every query takes four bytes of it.
        for _ in 0..count {
            queries.push(f.counted_string()?);
        }
        f.end()?;
        Ok(MetaQuery { name, queries })
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        put_counted(&self.name, out)?;
        let count = u32::try_from(self.queries.len()).map_err(|_| Error::invalid("too many NBD queries"))?;
        out.extend_from_slice(&count.to_be_bytes());
        self.queries.iter().try_for_each(|q| put_counted(q, out))
    }
}

/// The payload of [`Rep::SERVER`]: one export of a list.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its description for a person; may be empty.
    pub description: String,
}

impl Listed {
    /// Parses it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("REP_SERVER", payload);
        Ok(Listed { name: f.counted_string()?, description: text(f.rest()) })
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        put_counted(&self.name, out)?;
        string_len(&self.description)?;
        out.extend_from_slice(self.description.as_bytes());
        Ok(())
    }
}

/// The payload of [`Rep::META_CONTEXT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaContext {
    /// The number that stands for it in this session.
    pub id: u32,
    /// Its name.
    pub name: String,
}

impl MetaContext {
    /// Parses it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("REP_META_CONTEXT", payload);
        Ok(MetaContext { id: f.u32()?, name: f.rest_string()? })
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        string_len(&self.name)?;
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(self.name.as_bytes());
        Ok(())
    }
}

/// The sizes a client must keep to ("Size constraints").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    /// Offsets and lengths must be multiples of this.
    pub minimum: u32,
    /// Multiples of this are served best.
    pub preferred: u32,
    /// No payload may be longer.
    pub maximum: u32,
}

impl Default for BlockSize {
    fn default() -> Self {
        BlockSize { minimum: 1, preferred: 4096, maximum: super::PAYLOAD_MAX }
    }
}

impl BlockSize {
    /// Refuses sizes that the specification rules out.
    pub fn check(self) -> Result<Self> {
        let BlockSize { minimum, preferred, maximum } = self;
        let sound = minimum.is_power_of_two()
            && minimum <= super::MINIMUM_BLOCK_MAX
            && preferred.is_power_of_two()
            && preferred >= minimum.max(512)
            && maximum >= preferred;
        if sound {
            return Ok(self);
        }
        Err(Error::corrupt(format!(
            "NBD block sizes {minimum}, {preferred}, {maximum} contradict the protocol"
        )))
    }
}

/// The payload of [`Rep::INFO`]: one item of an export's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportInfo {
    /// Its size and what can be done with it.
    Export {
        /// In bytes.
        size: u64,
        /// What can be done with it.
        flags: TransmissionFlags,
    },
    /// Its canonical name.
    Name(String),
    /// Its description for a person.
    Description(String),
    /// Its block sizes, as they came: see [`BlockSize::check`].
    BlockSize(BlockSize),
    /// Something this module does not know, to be ignored.
    Other(Info),
}

impl ExportInfo {
    /// Parses it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("REP_INFO", payload);
        let parsed = match Info(f.u16()?) {
            Info::EXPORT => ExportInfo::Export { size: f.u64()?, flags: TransmissionFlags(f.u16()?) },
            Info::NAME => ExportInfo::Name(f.rest_string()?),
            Info::DESCRIPTION => ExportInfo::Description(text(f.rest())),
            Info::BLOCK_SIZE => {
                ExportInfo::BlockSize(BlockSize { minimum: f.u32()?, preferred: f.u32()?, maximum: f.u32()? })
            }
            other => return Ok(ExportInfo::Other(other)),
        };
        f.end()?;
        Ok(parsed)
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        let kind = match self {
            ExportInfo::Export { .. } => Info::EXPORT,
            ExportInfo::Name(_) => Info::NAME,
            ExportInfo::Description(_) => Info::DESCRIPTION,
            ExportInfo::BlockSize(_) => Info::BLOCK_SIZE,
            ExportInfo::Other(other) => *other,
        };
        out.extend_from_slice(&kind.0.to_be_bytes());
        match self {
            ExportInfo::Export { size, flags } => {
                out.extend_from_slice(&size.to_be_bytes());
                out.extend_from_slice(&flags.0.to_be_bytes());
            }
            ExportInfo::Name(s) | ExportInfo::Description(s) => {
                string_len(s)?;
                out.extend_from_slice(s.as_bytes());
            }
            ExportInfo::BlockSize(b) => {
                for size in [b.minimum, b.preferred, b.maximum] {
                    out.extend_from_slice(&size.to_be_bytes());
                }
            }
            ExportInfo::Other(_) => {}
        }
        Ok(())
    }
}

/// The answer to [`Opt::EXPORT_NAME`], which has no reply header. [`EXPORT_NAME_ZEROES`] may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportNameReply {
    /// In bytes.
    pub size: u64,
    /// What can be done with it.
    pub flags: TransmissionFlags,
}

impl ExportNameReply {
    /// Its length, without the zeroes.
    pub const LEN: usize = 10;

    /// Parses it.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self> {
        let mut f = Fields::of("export", bytes);
        Ok(ExportNameReply { size: f.u64()?, flags: TransmissionFlags(f.u16()?) })
    }

    /// Appends it, with the zeroes unless they were agreed to be left out.
    pub fn put(self, no_zeroes: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.flags.0.to_be_bytes());
        if !no_zeroes {
            out.extend_from_slice(&[0; EXPORT_NAME_ZEROES]);
        }
    }
}
