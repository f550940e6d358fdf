use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "A disk", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say("A qcow2 image promises 64 GiB and stores next to nothing.")?;
    guide.run("create disk.qcow2 64G", 3)?;
    guide.run("info disk.qcow2", 6)?;
    Ok(())
}
