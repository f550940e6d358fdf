//! What is inside disks, against the real tools.

mod ext4;
mod iso9660;
mod partition;
