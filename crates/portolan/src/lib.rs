//! Portolan as a library: open any disk by SPEC, see where its bytes live, and redraw that.
//!
//! Every call reports by value or by callback; none touches a terminal.
#![forbid(unsafe_code)]

pub mod bench;
pub mod bitmap;
pub mod charting;
pub mod check;
pub mod commit;
pub mod compare;
pub mod convert;
pub mod create;
mod emission;
pub mod files;
pub mod formats;
pub mod gate;
pub mod info;
pub mod listing;
pub mod measure;
pub mod open;
pub mod picture;
pub mod rebase;
pub mod resize;
pub mod serve;
pub mod size;
pub mod snapshot;
pub mod spec;
pub mod watch;

pub use formats::Format;
pub use gate::Gate;
pub use open::{Found, Image, Node, Opened, Options, find, open};
pub use spec::{Location, Spec, Step};
pub use watch::{Onlooker, Progress, Watch};
