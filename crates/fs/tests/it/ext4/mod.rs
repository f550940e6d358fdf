//! ext4 against the kernel, `mkfs.ext4` and `e2fsck`.

mod hostile;
mod image;
mod journal;
mod large;
mod options;
mod populate;
mod random;
mod tree;

pub(crate) use image::{Image, Mounted, open};
