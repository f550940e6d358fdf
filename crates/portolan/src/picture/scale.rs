//! From addresses to positions in the picture. Long holes are drawn shorter than they are, or nothing else could
//! be seen: most disks are mostly nothing.

use super::survey::Empty;
use crate::size::{parse, show};

/// All shortened holes together take this share of the picture at most.
const HOLES_SHARE: f64 = 0.3;

/// A shortened hole is at least so wide, to be recognised.
const HOLE_WIDTH: f64 = 26.0;

/// Ticks are so far from each other at least.
const TICK_GAP: f64 = 84.0;

/// A range of the disk and where it is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) x: f64,
    pub(super) width: f64,
    /// What it is called, if it is drawn shorter than it is.
    pub(super) shortened: Option<&'static str>,
}

/// The parts of the disk, in order, without gaps.
pub(super) struct Scale {
    pub(super) parts: Vec<Part>,
}

impl Scale {
    /// A scale for a disk of `len` bytes on `width`, of which these holes (in order) may be shortened.
    pub(super) fn new(len: u64, holes: &[Empty], width: f64) -> Scale {
        let empty: u64 = holes.iter().map(|run| run.end - run.start).sum();
        let linear = |bytes: u64| if len == 0 { 0.0 } else { bytes as f64 / len as f64 * width };
        // Where there is room for the rest anyway, an honest scale is better.
        let shorten = linear(empty) > width * 0.5 && empty < len;
        let holes = if shorten { holes } else { &[] };
        let least = HOLE_WIDTH.min(width * HOLES_SHARE / holes.len().max(1) as f64);
        let spare = width * HOLES_SHARE - least * holes.len() as f64;
        let hole_width = |bytes: u64| least + spare * bytes as f64 / empty as f64;
        let rest_width = width - holes.iter().map(|run| hole_width(run.end - run.start)).sum::<f64>();
        let rest = len - holes.iter().map(|run| run.end - run.start).sum::<u64>();
        let mut scale = Scale { parts: Vec::new() };
        let mut at = 0;
        for &Empty { start, end, zeros } in holes {
            scale.push(at, start, rest_width * (start - at) as f64 / rest.max(1) as f64, None);
            scale.push(start, end, hole_width(end - start), Some(if zeros { "zeros" } else { "nothing" }));
            at = end;
        }
        scale.push(at, len, rest_width * (len - at) as f64 / rest.max(1) as f64, None);
        scale
    }

    fn push(&mut self, start: u64, end: u64, width: f64, shortened: Option<&'static str>) {
        if start < end {
            let x = self.parts.last().map_or(0.0, |p| p.x + p.width);
            self.parts.push(Part { start, end, x, width, shortened });
        }
    }

    /// Where an address is drawn.
    pub(super) fn x(&self, at: u64) -> f64 {
        let i = self.parts.partition_point(|p| p.end <= at);
        let Some(part) = self.parts.get(i) else { return self.parts.last().map_or(0.0, |p| p.x + p.width) };
        part.x + part.width * (at - part.start) as f64 / (part.end - part.start) as f64
    }

    /// Which address is drawn there.
    pub(super) fn at(&self, x: f64) -> u64 {
        let i = self.parts.partition_point(|p| p.x + p.width <= x);
        let Some(part) = self.parts.get(i) else { return self.parts.last().map_or(0, |p| p.end) };
        let within = ((x - part.x) / part.width).clamp(0.0, 1.0) * (part.end - part.start) as f64;
        part.start + within as u64
    }

    /// Addresses to write beside the picture, and where: the beginning, the end, and between them what a few digits tell
    /// exactly, far enough from each other. A part in which there is no such address is told by its beginning.
    pub(super) fn ticks(&self) -> Vec<(u64, f64)> {
        let Some(last) = self.parts.last() else { return vec![(0, 0.0)] };
        let (len, width) = (last.end, last.x + last.width);
        let mut ticks = vec![(0, 0.0)];
        for part in self.parts.iter().filter(|part| part.shortened.is_none()) {
            let apart = (part.end - part.start) as f64 / part.width * TICK_GAP;
            let step = (apart as u64).max(1).checked_next_power_of_two().unwrap_or(1 << 63);
            let first = part.start.div_ceil(step);
            let exact = (first..).map(|n| n.saturating_mul(step)).take_while(|&at| at < part.end);
            let exact: Vec<u64> =
                exact.filter(|&at| parse(&show(at).replace(' ', "")).is_ok_and(|told| told == at)).collect();
            let all = if exact.is_empty() { vec![part.start] } else { exact };
            for at in all {
                let x = self.x(at);
                let told = |known: u64| show(known) == show(at);
                let near = ticks.last().is_some_and(|&(known, before)| x - before < TICK_GAP || told(known));
                if !near && width - x >= TICK_GAP && !told(len) {
                    ticks.push((at, x));
                }
            }
        }
        ticks.push((len, width));
        ticks
    }
}
