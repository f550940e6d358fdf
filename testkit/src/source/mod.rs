//! Sources for tests: one in memory, and decorators of any other.
//!
//! Every decorator keeps the contract of [`chart::Source`] itself, and wraps: whoever clones sees through it, whoever
//! reads and writes does not.

mod failing;
mod memory;
mod paused;
mod recorder;
mod short;
mod slow;
#[cfg(test)]
mod tests;

pub use failing::{Failing, Op};
pub use memory::Memory;
pub use paused::{Hold, Paused, When};
pub use recorder::{Event, Log, Recorder};
pub use short::Short;
pub use slow::Slow;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock, whoever died holding it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
