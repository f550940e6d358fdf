//! The plain data of a chart: extents and places.

/// A source in its own disk's list. Means nothing outside that disk (law 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u16);

/// A codec in its own disk's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodecId(pub u8);

/// An encoded run: compressed, encrypted or checksummed bytes that must be decoded as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Where the stored bytes begin in the source.
    pub offset: u64,
    /// An upper bound of their number: it may reach past the stream's end, and past the source's.
    pub stored_len: u32,
    /// How many bytes they decode to.
    pub decoded_len: u32,
    /// How many decoded bytes lie before the extent's first.
    pub skip: u32,
    /// The source that holds them.
    pub source: SourceId,
    /// How they are encoded.
    pub codec: CodecId,
}

/// Where the bytes of an extent live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Nothing is stored; reads as zeros.
    Hole,
    /// Stored as zeros.
    Zero,
    /// In a source, as they are.
    Raw {
        /// The source that holds them.
        source: SourceId,
        /// Where they begin in it.
        offset: u64,
    },
    /// In an encoded run of a source: the fields of [`Frame`], laid out so that an extent stays 48 bytes.
    Frame {
        /// See [`Frame::offset`].
        offset: u64,
        /// See [`Frame::stored_len`].
        stored_len: u32,
        /// See [`Frame::decoded_len`].
        decoded_len: u32,
        /// See [`Frame::skip`].
        skip: u32,
        /// See [`Frame::source`].
        source: SourceId,
        /// See [`Frame::codec`].
        codec: CodecId,
    },
}

impl From<Frame> for Place {
    fn from(Frame { offset, stored_len, decoded_len, skip, source, codec }: Frame) -> Self {
        Place::Frame { offset, stored_len, decoded_len, skip, source, codec }
    }
}

impl Place {
    /// Whether it reads as zeros without looking anywhere.
    pub fn is_zero(&self) -> bool {
        matches!(self, Place::Hole | Place::Zero)
    }

    /// The place of the byte `by` further on.
    #[must_use]
    pub fn skip(self, by: u64) -> Self {
        match self {
            Place::Raw { source, offset } => Place::Raw { source, offset: offset.saturating_add(by) },
            Place::Frame { offset, stored_len, decoded_len, skip, source, codec } => {
                let skip = skip.saturating_add(u32::try_from(by).unwrap_or(u32::MAX));
                Place::Frame { offset, stored_len, decoded_len, skip, source, codec }
            }
            zero => zero,
        }
    }

    /// The encoded run, where it is one.
    pub fn as_frame(self) -> Option<Frame> {
        match self {
            Place::Frame { offset, stored_len, decoded_len, skip, source, codec } => {
                Some(Frame { offset, stored_len, decoded_len, skip, source, codec })
            }
            _ => None,
        }
    }
}

/// A run of a chart whose bytes live in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Where it begins in the chart.
    pub at: u64,
    /// How long it is; never 0.
    pub len: u64,
    /// Where the bytes live.
    pub place: Place,
    /// Whether a write may go straight to the place: no map, bitmap or header must change for it (law 4).
    pub writable: bool,
}

const _: () = assert!(size_of::<Extent>() == 48);

impl Extent {
    /// One past its last byte.
    pub fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }

    /// A run of nothing.
    pub fn hole(at: u64, len: u64) -> Self {
        Extent { at, len, place: Place::Hole, writable: false }
    }

    /// A run stored as zeros.
    pub fn zero(at: u64, len: u64) -> Self {
        Extent { at, len, place: Place::Zero, writable: false }
    }

    /// A run of a source, not writable.
    pub fn raw(at: u64, len: u64, source: SourceId, offset: u64) -> Self {
        Extent { at, len, place: Place::Raw { source, offset }, writable: false }
    }

    /// A run inside an encoded frame. Shorter than asked where the frame ends first.
    pub fn frame(at: u64, len: u64, frame: Frame) -> Self {
        let rest = u64::from(frame.decoded_len.saturating_sub(frame.skip));
        Extent { at, len: len.min(rest), place: frame.into(), writable: false }
    }

    /// The part of it that lies in `[at, at + want)`; the caller knows that `at` lies in it.
    #[must_use]
    pub fn clip(self, at: u64, want: u64) -> Self {
        let by = at.saturating_sub(self.at);
        let len = self.len.saturating_sub(by).min(want);
        Extent { at: self.at.saturating_add(by), len, place: self.place.skip(by), writable: self.writable }
    }

    /// Whether `next` continues this extent, in the chart and in the place, so that the two are one.
    pub fn joins(&self, next: &Extent) -> bool {
        self.end() == next.at
            && self.writable == next.writable
            && !matches!(self.place, Place::Frame { .. })
            && self.place.skip(self.len) == next.place
    }
}
