//! Where every byte of a disk really lives.
//!
//! A [`Chart`] answers one question: for a range of a disk, in what place do its bytes live? The answer is an
//! [`Extent`]: plain data, no lifetimes. A [`Disk`] is a chart with the [`Source`]s its extents name, and is a
//! source itself, so that charts compose: a partition over a qcow2 over a file is three disks, each answering
//! only for its own layer, resolved when asked.
//!
//! The laws that every implementation keeps are written in `docs/laws.md` and held by the `testkit` crate.
#![forbid(unsafe_code)]

mod codec;
mod disk;
mod error;
mod extent;
pub mod file;
mod flight;
mod layer;
mod mutate;
mod overlay;
mod pin;
mod slice;
mod source;
mod table;

pub use codec::Codec;
pub use disk::{
    Coded, Disk, DiskBuilder, Geometry, Leaf, LeafPlace, MAX_DEPTH, Plan, Purpose, Walk, both_at, same_place,
};
pub use error::{Error, Kind, Remedy, Result, ResultExt};
pub use extent::{CodecId, Extent, Frame, Place, SourceId};
pub use flight::{Flight, InFlight};
pub use layer::{Answer, Chart, Layer, Wait};
pub use mutate::{ChartMut, Intent, Reservation, Reserve, SetMode, To};
pub use overlay::Overlay;
pub use pin::{Epochs, Pin};
pub use slice::Slice;
pub use source::{Backing, Family, Identity, Limits, Member, Run, Source, check_range};
pub use table::{Table, TableBuilder};
