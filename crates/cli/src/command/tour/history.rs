use super::{Guide, Stop};

pub(super) const STOP: Stop = Stop { title: "Every state of a disk", visit };

fn visit(guide: &mut Guide<'_>) -> anyhow::Result<()> {
    guide.say(
        "A version is a chart that is never changed. While this disk is written, its states are kept,",
    )?;
    guide.say("each of them a disk beside it; what they have in common is stored once.")?;
    let uri = "nbd+unix:///?socket=history.sock";
    let at = |n: u32| format!("nbd+unix:///v{n}?socket=history.sock");
    let server = guide.beside(
        "serve --history 200ms --listen unix:history.sock --pid-file history.pid disk.qcow2",
        "history.pid",
    )?;
    guide.run(&format!("bench -f raw --write --size 64k --operations 64 --within 64M {uri}"), 1)?;
    guide.pause();
    guide.run(&format!("bench -f raw --write --size 64k --operations 16 --within 64M {uri}"), 1)?;
    guide.pause();
    guide.run(&format!("compare disk.qcow2 {}", at(0)), 1)?;
    guide.run_expecting(&format!("compare {} {}", at(0), at(2)), 2, 1)?;
    guide.end(server)
}
