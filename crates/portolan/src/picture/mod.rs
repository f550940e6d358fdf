//! The chart of a disk as a picture (SVG) that a person can read.
//!
//! At the top lies the disk, coloured by where its bytes live; below it what each layer of the chain holds; at the
//! bottom the files, and ribbons from each range of the disk to its place in them.

mod draw;
mod scale;
mod survey;
#[cfg(test)]
mod tests;

use crate::{Image, Watch};
use chart::Result;
use scale::Scale;
use survey::{Outline, Survey};

/// The picture of an image's disk. `host` asks each file which of its ranges are stored at all.
pub fn svg(image: &Image, host: bool, watch: Watch<'_>) -> Result<String> {
    let outline = Outline::of(image, host, watch)?;
    let scale = Scale::new(image.disk().len(), &outline.empty, draw::BAR_WIDTH);
    let survey = Survey::of(image, host, watch, (&outline, &scale))?;
    Ok(draw::draw(&survey, &scale))
}
