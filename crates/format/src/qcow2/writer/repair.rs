//! Repairing: refcounts and flags made anew from what really refers to what.

use crate::check::{Repair, Report};
use crate::qcow2::Image;
use crate::qcow2::layout::incompatible;
use chart::{Error, Kind, Result};

impl Image {
    /// Repairs the image if it was left dirty, as QEMU does before it writes to one. One that is marked corrupt is
    /// refused: that is for a person to decide.
    pub fn recover(&self) -> Result<()> {
        if self.header().is_incompatible(incompatible::CORRUPT) {
            let what = "the image is marked corrupt and cannot be written before it is repaired";
            return Err(Error::corrupt(what).at(72).in_path(self.file.name()));
        }
        if self.is_damaged() { self.repair(Repair::All).map(drop) } else { Ok(()) }
    }

    /// Gives the image refcounts that agree with its references, and flags that agree with both: no leaks and no
    /// corruption are left. Marks that said it was dirty or corrupt are taken away. Refuses where the tables
    /// themselves are damaged, naming the place. Returns what was wrong before.
    pub fn repair(&self, what: Repair) -> Result<Report> {
        // What the writer has not written yet would look like damage.
        self.flush_all()?;
        let found = self.check()?;
        if what == Repair::Leaks && found.corruptions > 0 {
            let say = format!(
                "{} things are wrong that are more than leaks; leaks alone cannot be repaired then",
                found.corruptions
            );
            return Err(Error::corrupt(say).in_path(self.file.name()));
        }
        if !found.is_clean() || self.is_damaged() {
            self.prove_repairable().map_err(|e| e.in_path(self.file.name()))?;
            self.replace_damaged_roots(Ok)?;
        }
        Ok(found)
    }

    /// Whether references are such that refcounts can be made from them. Found out without changing anything: what
    /// cannot be repaired is somebody's only copy, and stays as it is, to the byte.
    fn prove_repairable(&self) -> Result<()> {
        let header = self.header().clone();
        let (census, report) = self.census(&header)?;
        if let Some(finding) = report.findings.first() {
            let what = format!(
                "the image is damaged in a way that cannot be mended here, and was left as it is: {}",
                finding.what
            );
            return Err(Error::corrupt(what).at(finding.offset));
        }
        // The new roots go behind the end of the file: in the place of what is missing there.
        let end = census.clusters();
        if census.of(end) > 0 {
            let what = format!(
                "the tables refer to cluster {end}, which the file does not have; it seems to be cut off, and was \
                 left as it is"
            );
            return Err(Error::corrupt(what).at(self.clusters.offset(end).unwrap_or(u64::MAX)));
        }
        self.refuse_overlaps(&header).map_err(|e| match e.kind() {
            Kind::Corrupt => {
                Error::corrupt(format!("{e}; this cannot be mended here, and was left as it is"))
            }
            _ => e,
        })
    }
}
