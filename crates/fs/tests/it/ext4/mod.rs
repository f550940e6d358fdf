//! ext4 against the kernel, `mkfs.ext4` and `e2fsck`.

mod image;
mod journal;
mod options;
mod populate;
mod tree;

pub(crate) use image::{Image, Mounted, open};
