use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "And back: is it the same?", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say(
        "Clone, raw and qcow2 again hold the same disk. Holes, and what lies in one place, are not read.",
    )?;
    guide.run("compare clone.qcow2 again.qcow2", 2)?;
    guide.run("check again.qcow2", 2)?;
    Ok(())
}
