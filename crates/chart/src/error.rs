//! One error type: a kind a caller can act on, and the context a person needs.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// The result of everything in this workspace that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a caller would act differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself makes no sense.
    Invalid,
    /// Something that was named does not exist.
    NotFound,
    /// Not allowed: by the operating system or by the Gate.
    Denied,
    /// Writing to something that cannot be written.
    ReadOnly,
    /// Past the end.
    OutOfRange,
    /// Understood and refused: a feature this program does not have.
    Unsupported,
    /// The bytes contradict their format.
    Corrupt,
    /// Somebody else holds it, or it changed underneath.
    Conflict,
    /// A newer writer has taken over.
    Fenced,
    /// The other side does not answer.
    Unavailable,
    /// Asked not to wait, and would have had to.
    WouldBlock,
    /// The device is full.
    NoSpace,
    /// Any other failure of the system underneath.
    Io,
}

impl Kind {
    /// The kind as a person would say it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid request",
            Kind::NotFound => "not found",
            Kind::Denied => "not allowed",
            Kind::ReadOnly => "read-only",
            Kind::OutOfRange => "out of range",
            Kind::Unsupported => "not supported",
            Kind::Corrupt => "corrupt",
            Kind::Conflict => "conflict",
            Kind::Fenced => "fenced",
            Kind::Unavailable => "unavailable",
            Kind::WouldBlock => "would block",
            Kind::NoSpace => "no space",
            Kind::Io => "I/O error",
        }
    }
}

/// What the person who reads an error could do about it, where that is more than its kind says. Whoever shows the
/// error finds the words for it: in this workspace nobody else knows of switches or buttons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Allow images to name what lies there.
    AllowThere,
    /// Allow images to name whatever they like, servers included.
    AllowAnything,
    /// Allow formats to be guessed, or write them down.
    AllowGuessing,
    /// Stop who is using it.
    StopUser,
    /// Stop who is writing it, or look at it all the same.
    StopUserOrShare,
    /// Say that what is there is to be replaced.
    Replace,
    /// Say that its bytes are meant as they are.
    NameRaw,
    /// Say that it may become shorter.
    AllowShrinking,
    /// Put one of the images in a loop over another file.
    BreakLoop,
    /// Write the chart down anew.
    ChartAgain,
    /// Say which partition is meant.
    ChoosePartition,
    /// List the directory, or take it out.
    ListOrExtract,
}

/// An error: eight bytes, and for `WouldBlock`, the hot one, no allocation.
pub struct Error(Option<Box<Detail>>);

struct Detail {
    kind: Kind,
    what: Cow<'static, str>,
    offset: Option<u64>,
    path: Option<PathBuf>,
    during: Vec<String>,
    remedy: Option<Remedy>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

macro_rules! makers {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])* #[cold] pub fn $name(what: impl Into<Cow<'static, str>>) -> Self { Self::new(Kind::$kind, what) })*
    };
}

impl Error {
    /// What would have had to wait. Costs nothing to make.
    pub const WOULD_BLOCK: Error = Error(None);

    /// An error of `kind`, saying `what` happened.
    #[cold]
    pub fn new(kind: Kind, what: impl Into<Cow<'static, str>>) -> Self {
        if kind == Kind::WouldBlock {
            return Error(None);
        }
        let (offset, path, during, remedy, cause) = (None, None, Vec::new(), None, None);
        Error(Some(Box::new(Detail { kind, what: what.into(), offset, path, during, remedy, cause })))
    }

    makers! {
        /// [`Kind::Invalid`].
        invalid => Invalid;
        /// [`Kind::NotFound`].
        not_found => NotFound;
        /// [`Kind::Denied`].
        denied => Denied;
        /// [`Kind::ReadOnly`].
        read_only => ReadOnly;
        /// [`Kind::OutOfRange`].
        out_of_range => OutOfRange;
        /// [`Kind::Unsupported`].
        unsupported => Unsupported;
        /// [`Kind::Corrupt`].
        corrupt => Corrupt;
        /// [`Kind::Conflict`].
        conflict => Conflict;
        /// [`Kind::Unavailable`].
        unavailable => Unavailable;
        /// [`Kind::NoSpace`].
        no_space => NoSpace;
        /// [`Kind::Io`].
        io => Io;
    }

    /// What a caller can act on.
    pub fn kind(&self) -> Kind {
        self.0.as_ref().map_or(Kind::WouldBlock, |d| d.kind)
    }

    /// Whether this only says that an answer would have had to wait.
    pub fn is_would_block(&self) -> bool {
        self.0.is_none()
    }

    /// The byte position in the source where it happened.
    pub fn offset(&self) -> Option<u64> {
        self.0.as_ref()?.offset
    }

    /// The file or address it happened in.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref()?.path.as_deref()
    }

    /// What could be done about it, where somebody knew.
    pub fn remedy(&self) -> Option<Remedy> {
        self.0.as_ref()?.remedy
    }

    /// The operating system's number for it, where there was one.
    pub fn os_code(&self) -> Option<i32> {
        let cause = self.0.as_ref()?.cause.as_deref()?;
        cause.downcast_ref::<std::io::Error>()?.raw_os_error()
    }

    /// Adds the byte position, unless one is known already.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        if let Some(d) = &mut self.0 {
            d.offset.get_or_insert(offset);
        }
        self
    }

    /// Adds the file or address, unless one is known already.
    #[must_use]
    pub fn in_path(mut self, path: impl Into<PathBuf>) -> Self {
        if let Some(d) = &mut self.0 {
            d.path.get_or_insert_with(|| path.into());
        }
        self
    }

    /// Adds what was being done, innermost first.
    #[must_use]
    pub fn during(mut self, what: impl Into<String>) -> Self {
        if let Some(d) = &mut self.0 {
            d.during.push(what.into());
        }
        self
    }

    /// Adds what could be done about it, unless that is known already.
    #[must_use]
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        if let Some(d) = &mut self.0 {
            d.remedy.get_or_insert(remedy);
        }
        self
    }

    /// Adds the error that caused it.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        if let Some(d) = &mut self.0 {
            d.cause = Some(cause.into());
        }
        self
    }

    /// The same error again, for a second person who has to hear of it. The cause is kept as words.
    #[must_use]
    pub fn repeat(&self) -> Self {
        let Some(d) = &self.0 else { return Error(None) };
        let mut again = Error::new(d.kind, d.what.clone());
        if let Some(new) = &mut again.0 {
            new.offset = d.offset;
            new.path.clone_from(&d.path);
            new.during.clone_from(&d.during);
            new.remedy = d.remedy;
            new.cause = d.cause.as_ref().map(|c| c.to_string().into());
        }
        again
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(d) = &self.0 else { return f.write_str("would block") };
        for step in d.during.iter().rev() {
            write!(f, "{step}: ")?;
        }
        if let Some(path) = &d.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&d.what)?;
        if let Some(offset) = d.offset {
            write!(f, " (at byte {offset})")?;
        }
        match &d.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let kind = match e.kind() {
            K::WouldBlock => return Error(None),
            K::NotFound => Kind::NotFound,
            K::PermissionDenied => Kind::Denied,
            K::ReadOnlyFilesystem => Kind::ReadOnly,
            K::StorageFull | K::QuotaExceeded => Kind::NoSpace,
            K::InvalidInput => Kind::Invalid,
            K::Unsupported => Kind::Unsupported,
            K::AlreadyExists => Kind::Conflict,
            K::TimedOut | K::ConnectionReset | K::ConnectionRefused | K::BrokenPipe | K::NotConnected => {
                Kind::Unavailable
            }
            _ => Kind::Io,
        };
        Error::new(kind, kind.name()).caused_by(e)
    }
}

/// Adds context to a result without a closure at every call.
pub trait ResultExt<T> {
    /// Adds what was being done.
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
    /// Adds the file or address.
    fn in_path(self, path: &Path) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.into().during(what()))
    }
    fn in_path(self, path: &Path) -> Result<T> {
        self.map_err(|e| e.into().in_path(path))
    }
}
