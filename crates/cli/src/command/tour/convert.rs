use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "Another format", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say("To convert is to redraw the chart. Where the file system can share ranges between files,")?;
    guide.say("no data is written at all; where it cannot, only what is stored is copied, in parallel.")?;
    let stored = guide.stored("disk.qcow2");
    let said = guide.run("convert clone.qcow2 flat.raw", 3)?;
    if !said.contains("shared with the source") {
        guide.say("  This file system cannot share them; XFS and Btrfs can: portolan tour --dir /mnt/...")?;
    }
    guide.instead_of(stored, "Copying what is stored")?;
    guide.run("convert flat.raw again.qcow2", 3)?;
    guide.instead_of(stored, "Copying what is stored")
}
