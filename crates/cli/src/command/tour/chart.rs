use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "The chart", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say("Where every byte of the disk really lives: in which file, and where in it.")?;
    guide.run("chart disk.qcow2", 7)?;
    Ok(())
}
