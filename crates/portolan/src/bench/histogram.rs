//! How long requests took: buckets that grow with what they hold, so that every figure is true to one in 32.

use super::Latency;
use std::time::Duration;

/// Buckets for each doubling.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Enough for every 64-bit number.
const BUCKETS: usize = ((64 - STEP_BITS as usize) + 1) * STEPS as usize;

/// Counts of durations.
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

/// The bucket of a number of nanoseconds.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let doubling = nanos.ilog2() - STEP_BITS;
    ((u64::from(doubling) + 1) * STEPS + (nanos >> doubling) - STEPS) as usize
}

/// The largest number in a bucket.
fn largest(bucket: usize) -> u64 {
    let (doubling, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if doubling == 0 { step } else { ((u128::from(STEPS + step + 1) << (doubling - 1)) - 1) as u64 }
}

impl Histogram {
    pub(super) fn new() -> Histogram {
        Histogram { buckets: vec![0; BUCKETS], count: 0, sum: 0, max: 0 }
    }

    pub(super) fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.sum += u128::from(nanos);
        self.max = self.max.max(nanos);
    }

    pub(super) fn add(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(a, b)| *a += b);
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What so many of a thousand took no longer than.
    fn of_thousand(&self, n: u64) -> u64 {
        let mut left = (u128::from(self.count) * u128::from(n)).div_ceil(1000) as u64;
        for (i, count) in self.buckets.iter().enumerate() {
            left = left.saturating_sub(*count);
            if left == 0 && *count > 0 {
                return largest(i).min(self.max);
            }
        }
        self.max
    }

    pub(super) fn latency(&self) -> Latency {
        Latency {
            mean: (self.sum / u128::from(self.count.max(1))) as u64,
            p50: self.of_thousand(500),
            p90: self.of_thousand(900),
            p99: self.of_thousand(990),
            p999: self.of_thousand(999),
            max: self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_in_its_bucket() {
        for nanos in (0..5000).chain([1 << 20, (1 << 33) + 12345, u64::MAX - 1, u64::MAX]) {
            let top = largest(bucket(nanos));
            assert!(top >= nanos && (top - nanos) <= nanos / STEPS, "{nanos} in the bucket of {top}");
        }
    }

    #[test]
    fn shares_of_a_thousand() {
        let mut histogram = Histogram::new();
        (1..=1000u64).for_each(|n| histogram.record(Duration::from_micros(n)));
        let near = |value: u64, micros: u64| value.abs_diff(micros * 1000) <= micros * 1000 / 31;
        let l = histogram.latency();
        assert!(near(l.p50, 500) && near(l.p99, 990) && near(l.p999, 999) && near(l.mean, 500), "{l:?}");
        assert_eq!(l.max, 1_000_000);
    }
}
