//! What is inside disks, against the real tools.

mod partition;
