//! Every number of the protocol ("Values"). Kept as they came, so that an unknown one can be answered.

use std::fmt;
use std::ops::BitOr;

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident($repr:ty) { $($(#[$one:meta])* $constant:ident = $value:expr, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub $repr);

        impl $name {
            $($(#[$one])* pub const $constant: $name = $name($value);)*

            /// Its name in the specification, where it has one.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $($name::$constant => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{} {:#x}", stringify!($name), self.0),
                }
            }
        }
    };
}

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident($repr:ty) { $($(#[$one:meta])* $constant:ident = $bit:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub $repr);

        impl $name {
            /// No flag set.
            pub const NONE: $name = $name(0);
            /// Every flag this module knows.
            pub const KNOWN: $name = $name(0 $(| (1 << $bit))*);
            $($(#[$one])* pub const $constant: $name = $name(1 << $bit);)*

            /// Whether all of `flags` are set.
            pub fn has(self, flags: $name) -> bool {
                self.0 & flags.0 == flags.0
            }

            /// These flags if `yes`, else none.
            #[must_use]
            pub fn only_if(self, yes: bool) -> Self {
                if yes { self } else { $name::NONE }
            }
        }

        impl BitOr for $name {
            type Output = $name;
            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }
    };
}

flags! {
    /// What the server says in its greeting.
    HandshakeFlags(u16) {
        /// It speaks fixed newstyle.
        FIXED_NEWSTYLE = 0;
        /// It can leave out the zeroes after `OPT_EXPORT_NAME`.
        NO_ZEROES = 1;
    }
}

flags! {
    /// What the client answers to the greeting.
    ClientFlags(u32) {
        /// It speaks fixed newstyle.
        FIXED_NEWSTYLE = 0;
        /// The zeroes after `OPT_EXPORT_NAME` are to be left out.
        NO_ZEROES = 1;
    }
}

flags! {
    /// What can be done with an export.
    TransmissionFlags(u16) {
        /// Always set.
        HAS_FLAGS = 0;
        /// It cannot be written.
        READ_ONLY = 1;
        /// `CMD_FLUSH` is understood.
        SEND_FLUSH = 2;
        /// `CMD_FLAG_FUA` is understood.
        SEND_FUA = 3;
        /// It behaves like a rotating disk.
        ROTATIONAL = 4;
        /// `CMD_TRIM` is understood.
        SEND_TRIM = 5;
        /// `CMD_WRITE_ZEROES` is understood.
        SEND_WRITE_ZEROES = 6;
        /// `CMD_FLAG_DF` is understood.
        SEND_DF = 7;
        /// A flush on one connection covers all of them.
        CAN_MULTI_CONN = 8;
        /// `CMD_RESIZE` is understood (an extension).
        SEND_RESIZE = 9;
        /// `CMD_CACHE` is understood.
        SEND_CACHE = 10;
        /// `CMD_FLAG_FAST_ZERO` is understood.
        SEND_FAST_ZERO = 11;
        /// `CMD_BLOCK_STATUS` may name the contexts it asks for.
        BLOCK_STATUS_PAYLOAD = 12;
    }
}

flags! {
    /// How a command is to be carried out.
    CommandFlags(u16) {
        /// Answered when durable.
        FUA = 0;
        /// Zeroes are to keep their space.
        NO_HOLE = 1;
        /// The data is to come in one chunk.
        DF = 2;
        /// One extent a context is enough.
        REQ_ONE = 3;
        /// Zero only if that is faster than writing.
        FAST_ZERO = 4;
        /// The length is that of the payload (extended headers).
        PAYLOAD_LEN = 5;
    }
}

flags! {
    /// What is said of one chunk of a reply.
    ChunkFlags(u16) {
        /// It is the last of its reply.
        DONE = 0;
    }
}

flags! {
    /// What `base:allocation` says of an extent.
    AllocationState(u64) {
        /// Not allocated.
        HOLE = 0;
        /// Reads as zeroes.
        ZERO = 1;
    }
}

numbers! {
    /// What a client asks for while options are negotiated.
    Opt(u32) {
        /// Choose an export, the old way.
        EXPORT_NAME = 1, "OPT_EXPORT_NAME";
        /// End the session.
        ABORT = 2, "OPT_ABORT";
        /// List exports.
        LIST = 3, "OPT_LIST";
        /// Withdrawn.
        PEEK_EXPORT = 4, "OPT_PEEK_EXPORT";
        /// Begin TLS.
        STARTTLS = 5, "OPT_STARTTLS";
        /// Describe an export.
        INFO = 6, "OPT_INFO";
        /// Choose an export.
        GO = 7, "OPT_GO";
        /// Use structured replies.
        STRUCTURED_REPLY = 8, "OPT_STRUCTURED_REPLY";
        /// List metadata contexts.
        LIST_META_CONTEXT = 9, "OPT_LIST_META_CONTEXT";
        /// Choose metadata contexts.
        SET_META_CONTEXT = 10, "OPT_SET_META_CONTEXT";
        /// Use extended headers.
        EXTENDED_HEADERS = 11, "OPT_EXTENDED_HEADERS";
    }
}

const ERR: u32 = 1 << 31;

numbers! {
    /// How a server answers an option.
    Rep(u32) {
        /// Accepted; the last of its answers.
        ACK = 1, "REP_ACK";
        /// One export of a list.
        SERVER = 2, "REP_SERVER";
        /// One item of an export's description.
        INFO = 3, "REP_INFO";
        /// One metadata context.
        META_CONTEXT = 4, "REP_META_CONTEXT";
        /// Unknown to this server.
        ERR_UNSUP = ERR | 1, "REP_ERR_UNSUP";
        /// Forbidden by its policy.
        ERR_POLICY = ERR | 2, "REP_ERR_POLICY";
        /// Malformed.
        ERR_INVALID = ERR | 3, "REP_ERR_INVALID";
        /// Not on this platform.
        ERR_PLATFORM = ERR | 4, "REP_ERR_PLATFORM";
        /// Only after TLS.
        ERR_TLS_REQD = ERR | 5, "REP_ERR_TLS_REQD";
        /// There is no such export.
        ERR_UNKNOWN = ERR | 6, "REP_ERR_UNKNOWN";
        /// The server is going away.
        ERR_SHUTDOWN = ERR | 7, "REP_ERR_SHUTDOWN";
        /// Block sizes must be asked for.
        ERR_BLOCK_SIZE_REQD = ERR | 8, "REP_ERR_BLOCK_SIZE_REQD";
        /// Too large.
        ERR_TOO_BIG = ERR | 9, "REP_ERR_TOO_BIG";
        /// Extended headers must be used.
        ERR_EXT_HEADER_REQD = ERR | 10, "REP_ERR_EXT_HEADER_REQD";
    }
}

impl Rep {
    /// Whether it refuses the option.
    pub fn is_error(self) -> bool {
        self.0 & ERR != 0
    }
}

numbers! {
    /// What an item of an export's description is about.
    Info(u16) {
        /// Size and transmission flags.
        EXPORT = 0, "INFO_EXPORT";
        /// Its canonical name.
        NAME = 1, "INFO_NAME";
        /// Its description for a person.
        DESCRIPTION = 2, "INFO_DESCRIPTION";
        /// Its block sizes.
        BLOCK_SIZE = 3, "INFO_BLOCK_SIZE";
    }
}

numbers! {
    /// What a client asks for in the transmission phase.
    Command(u16) {
        /// Read.
        READ = 0, "CMD_READ";
        /// Write.
        WRITE = 1, "CMD_WRITE";
        /// Disconnect. Has no reply.
        DISC = 2, "CMD_DISC";
        /// Make durable.
        FLUSH = 3, "CMD_FLUSH";
        /// No longer needed.
        TRIM = 4, "CMD_TRIM";
        /// Soon needed.
        CACHE = 5, "CMD_CACHE";
        /// Write zeroes.
        WRITE_ZEROES = 6, "CMD_WRITE_ZEROES";
        /// Tell metadata.
        BLOCK_STATUS = 7, "CMD_BLOCK_STATUS";
        /// Change the size (an extension).
        RESIZE = 8, "CMD_RESIZE";
    }
}

const ERROR_CHUNK: u16 = 1 << 15;

numbers! {
    /// What a chunk of a reply holds.
    ChunkKind(u16) {
        /// Nothing.
        NONE = 0, "REPLY_TYPE_NONE";
        /// Data.
        OFFSET_DATA = 1, "REPLY_TYPE_OFFSET_DATA";
        /// A run of zeroes.
        OFFSET_HOLE = 2, "REPLY_TYPE_OFFSET_HOLE";
        /// Metadata.
        BLOCK_STATUS = 5, "REPLY_TYPE_BLOCK_STATUS";
        /// Metadata, with 64-bit lengths.
        BLOCK_STATUS_EXT = 6, "REPLY_TYPE_BLOCK_STATUS_EXT";
        /// An error.
        ERROR = ERROR_CHUNK | 1, "REPLY_TYPE_ERROR";
        /// An error at a known offset.
        ERROR_OFFSET = ERROR_CHUNK | 2, "REPLY_TYPE_ERROR_OFFSET";
    }
}

impl ChunkKind {
    /// Whether it tells of an error, of a known kind or not.
    pub fn is_error(self) -> bool {
        self.0 & ERROR_CHUNK != 0
    }
}

numbers! {
    /// How a command failed ("Error values"). Zero is success.
    Code(u32) {
        /// It did not fail.
        OK = 0, "success";
        /// Not permitted.
        EPERM = 1, "EPERM, not permitted";
        /// Input or output failed.
        EIO = 5, "EIO, input/output error";
        /// No memory.
        ENOMEM = 12, "ENOMEM, out of memory";
        /// The request makes no sense.
        EINVAL = 22, "EINVAL, invalid argument";
        /// No space.
        ENOSPC = 28, "ENOSPC, no space left";
        /// Too large.
        EOVERFLOW = 75, "EOVERFLOW, too large";
        /// Not supported.
        ENOTSUP = 95, "ENOTSUP, not supported";
        /// The server is going away.
        ESHUTDOWN = 108, "ESHUTDOWN, the server is shutting down";
    }
}
