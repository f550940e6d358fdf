//! Repairing: refcounts and flags made anew from what really refers to what.

use crate::qcow2::Image;
use chart::Result;

impl Image {
    /// Gives the image refcounts that agree with its references, and flags that agree with both: no leaks and no
    /// corruption are left. Marks that said it was dirty or corrupt are taken away. Refuses where the tables
    /// themselves are damaged, naming the place.
    pub fn repair(&self) -> Result<()> {
        self.replace_roots(Ok)
    }
}
