//! What checks find, whatever the format.

/// So many findings are kept in words; the rest are only counted.
pub const MAX_FINDINGS: usize = 1000;

/// What is wrong at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Space that nothing refers to: harmless.
    Leak,
    /// Structures that contradict each other: do not write.
    Corruption,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of wrong.
    pub wrong: Wrong,
    /// Where in the image file.
    pub offset: u64,
    /// What it is, for a person.
    pub what: String,
}

/// What a check found. The numbers are those of `qemu-img check`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
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
    /// One past the last cluster in use.
    pub image_end_offset: u64,
    /// What was found, in words: the first [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.corruptions == 0 && self.leaks == 0
    }

    pub(crate) fn add(&mut self, wrong: Wrong, times: u64, offset: u64, what: impl FnOnce() -> String) {
        let count = match wrong {
            Wrong::Leak => &mut self.leaks,
            Wrong::Corruption => &mut self.corruptions,
        };
        *count = count.saturating_add(times);
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { wrong, offset, what: what() });
        }
    }
}

/// What is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Space that nothing refers to is given back. An image with more wrong than that is left as it is.
    Leaks,
    /// All that can be put right.
    All,
}
