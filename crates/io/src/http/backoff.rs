//! How long to wait before trying again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The wait after so many failed attempts: doubling from `min` to `max`, give or take a quarter, so that many who
/// failed together do not come back together.
pub(crate) fn backoff(tries: u32, min: Duration, max: Duration) -> Duration {
    let full = min.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(max);
    let random = RandomState::new().build_hasher().finish() >> 32;
    let share = 0.75 + (random as f64 / f64::from(u32::MAX)) / 2.0;
    full.mul_f64(share)
}
