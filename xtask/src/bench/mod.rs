//! stub
pub(crate) fn task(_: &[String]) -> anyhow::Result<()> {
    Ok(())
}
