//! Formats against the tools they come from.

mod probe;
mod qcow2;
mod qcow2_bitmaps;
mod qcow2_commit;
mod qcow2_data_file;
mod qcow2_emit;
mod qcow2_fixed;
mod qcow2_guard;
mod qcow2_laws;
mod qcow2_races;
mod qcow2_rebase;
mod qcow2_repair;
mod qcow2_write;
mod request_loop;
mod vdi;
mod vdi_emit;
mod vdi_laws;
