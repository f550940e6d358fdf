//! Checking images.

use crate::open::{self, Map};
use crate::{Image, Options, Spec};
use chart::Result;
use format::check::{Report, Wrong};
use serde::Serialize;

/// What a check found. The words of the serialised form are those of `qemu-img check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// How the image was named.
    pub filename: String,
    /// Its format.
    pub format: &'static str,
    /// What could not be looked at. A check that cannot look at everything fails, so there is none.
    pub check_errors: u64,
    /// Structures that contradict each other.
    pub corruptions: u64,
    /// Clusters that nothing refers to.
    pub leaks: u64,
    /// Clusters of the disk.
    pub total_clusters: u64,
    /// Those that are stored.
    pub allocated_clusters: u64,
    /// Those of them that do not follow the one before.
    pub fragmented_clusters: u64,
    /// Those of them that are compressed.
    pub compressed_clusters: u64,
    /// One past the last byte in use.
    pub image_end_offset: u64,
    /// What was found, in words.
    pub findings: Vec<Finding>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Whether it is more than lost space.
    pub corruption: bool,
    /// Where in the image file.
    pub offset: u64,
    /// What it is.
    pub what: String,
}

impl Check {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.corruptions == 0 && self.leaks == 0
    }
}

/// Checks the image that `spec` names, and changes nothing.
pub fn check(spec: &Spec, options: &Options) -> Result<Check> {
    let alone = Options { alone: true, allow_corrupt: true, writable: false, ..options.clone() };
    let opened = open::open(spec, &alone)?;
    let report = match &opened.image.map {
        Map::Vdi(map) => map.check(),
        _ => opened.image.qcow2("structure that could be checked")?.check(),
    }?;
    Ok(of(&opened.image, report))
}

/// What a repair may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Give lost space back, and nothing else. Where more is wrong, nothing is done.
    Leaks,
    /// Make refcounts and flags agree with what really refers to what.
    All,
}

/// What a repair did. Serialised it is the check after it, in the words of `qemu-img check -r`, with the one before
/// it inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repaired {
    /// What is found now; the same as before, where nothing had to be done or nothing was.
    #[serde(flatten)]
    pub after: Check,
    /// Contradictions that are gone.
    pub corruptions_fixed: u64,
    /// Leaked clusters that are gone.
    pub leaks_fixed: u64,
    /// What was found before.
    pub before: Check,
}

impl Repaired {
    fn of(before: Check, after: Check) -> Repaired {
        Repaired {
            corruptions_fixed: before.corruptions.saturating_sub(after.corruptions),
            leaks_fixed: before.leaks.saturating_sub(after.leaks),
            after,
            before,
        }
    }
}

/// Checks the image that `spec` names, and repairs it.
pub fn repair(spec: &Spec, repair: Repair, options: &Options) -> Result<Repaired> {
    // Refused whether or not there turns out to be anything to repair.
    open::may_be_unlocked(spec, &Options { writable: true, ..options.clone() })?;
    let before = check(spec, options)?;
    let within = repair == Repair::All || before.corruptions == 0;
    if before.is_clean() || !within {
        return Ok(Repaired::of(before.clone(), before));
    }
    let alone = Options { alone: true, allow_corrupt: true, writable: true, ..options.clone() };
    let opened = open::open(spec, &alone)?;
    let what = match repair {
        Repair::Leaks => format::check::Repair::Leaks,
        Repair::All => format::check::Repair::All,
    };
    match &opened.image.map {
        Map::Vdi(map) => map.repair(what),
        _ => opened.image.qcow2("structure that could be repaired")?.repair(what),
    }?;
    opened.close()?;
    Ok(Repaired::of(before, check(spec, options)?))
}

fn of(image: &Image, report: Report) -> Check {
    let finding = |f: format::check::Finding| Finding {
        corruption: f.wrong == Wrong::Corruption,
        offset: f.offset,
        what: f.what,
    };
    Check {
        filename: image.spec.location.to_string(),
        format: image.format.name(),
        check_errors: 0,
        corruptions: report.corruptions,
        leaks: report.leaks,
        total_clusters: report.total_clusters,
        allocated_clusters: report.allocated_clusters,
        fragmented_clusters: report.fragmented_clusters,
        compressed_clusters: report.compressed_clusters,
        image_end_offset: report.image_end_offset,
        findings: report.findings.into_iter().map(finding).collect(),
    }
}
