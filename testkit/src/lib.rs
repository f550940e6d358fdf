//! What the tests of this workspace stand on.
//!
//! - [`source`]: a source in memory, and decorators that are short, slow, failing, stopped at a chosen moment, or
//!   that write down what happened;
//! - [`contract`]: the laws of `docs/laws.md` as functions that any implementation can be handed to;
//! - [`crash`]: what may be left of a file when the power goes;
//! - [`toy`]: the reference implementation of the laws, with bugs that can be planted in it to prove that the
//!   contracts find them;
//! - [`peer`]: the real tools that have the last word.

pub mod contract;
pub mod crash;
pub mod peer;
mod rng;
pub mod source;
pub mod toy;

pub use rng::Rng;
