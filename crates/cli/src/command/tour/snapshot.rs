use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "A snapshot", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide
        .say("A snapshot keeps a chart. What is written afterwards goes elsewhere; @NAME reads what was.")?;
    let stored = guide.stored("disk.qcow2");
    guide.run("snapshot -c before disk.qcow2", 3)?;
    guide.instead_of(stored, "Copying the image")?;
    guide.run("bench --write --size 64k --operations 32 --within 64M --seed 7 disk.qcow2", 1)?;
    guide.run("snapshot disk.qcow2", 4)?;
    guide.run_expecting("compare disk.qcow2 disk.qcow2@before", 2, 1)?;
    Ok(())
}
