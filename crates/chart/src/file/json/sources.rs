//! Sources in the JSON form.

use crate::file::path;
use crate::file::sources::{FamilyRecord, Outside, SourceRecord, Sum, sound_member};
use crate::{Error, Identity, Member, Result};
use serde::{Deserialize, Serialize};

/// So many bytes are written in a line.
const LINE: usize = 64;

/// A source of any kind. One that is outside is told by its own fields, as it was when there were no others.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a source is {name, len}, perhaps with {identity, modified}; or {inline}; or {directory, len, files}"
)]
pub(super) enum SourceForm {
    Inline(InlineForm),
    Family(FamilyForm),
    Outside(OutsideForm),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutsideForm {
    name: String,
    len: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InlineForm {
    inline: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FamilyForm {
    directory: String,
    len: u64,
    files: Vec<MemberForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberForm {
    path: String,
    start: u64,
    len: u64,
    device: u64,
    inode: u64,
    generation: u64,
    modified: u64,
    changed: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum IdentityForm {
    File { device: u64, inode: u64, generation: u64 },
    Object { key: String, tag: String },
}

impl SourceForm {
    pub(super) fn of(record: &SourceRecord, sum: &mut Sum) -> Result<SourceForm> {
        Ok(match record {
            SourceRecord::Outside(outside) => SourceForm::Outside(OutsideForm {
                name: outside.name.clone(),
                len: outside.len,
                identity: outside.identity.as_ref().and_then(identity_form),
                modified: outside.modified,
            }),
            SourceRecord::Inline(bytes) => {
                sum.inline(bytes.len() as u64)?;
                SourceForm::Inline(InlineForm { inline: bytes.chunks(LINE).map(to_hex).collect() })
            }
            SourceRecord::Family(family) => {
                check(family, sum)?;
                SourceForm::Family(FamilyForm {
                    directory: path::to_text(&family.root),
                    len: family.len,
                    files: family.members.iter().filter_map(member_form).collect(),
                })
            }
        })
    }

    pub(super) fn record(self, sum: &mut Sum) -> Result<SourceRecord> {
        Ok(match self {
            SourceForm::Outside(form) => SourceRecord::Outside(Outside {
                name: form.name,
                len: form.len,
                identity: form.identity.map(identity),
                modified: form.modified,
            }),
            SourceForm::Inline(form) => {
                let mut bytes = Vec::new();
                for line in &form.inline {
                    sum.inline(line.len() as u64 / 2)?;
                    from_hex(line, &mut bytes)?;
                }
                SourceRecord::Inline(bytes)
            }
            SourceForm::Family(form) => {
                let members = form.files.into_iter().map(member).collect::<Result<_>>()?;
                let family = FamilyRecord { root: path::from_text(&form.directory)?, len: form.len, members };
                check(&family, sum)?;
                SourceRecord::Family(family)
            }
        })
    }
}

fn check(family: &FamilyRecord, sum: &mut Sum) -> Result<()> {
    sum.path(path::bytes(&family.root).len() as u64)?;
    sum.members(family.members.len() as u64)?;
    let mut end = 0;
    for member in &family.members {
        sound_member(member, end, family.len)?;
        sum.path(path::bytes(&member.name).len() as u64)?;
        end = member.start + member.len;
    }
    Ok(())
}

fn member_form(member: &Member) -> Option<MemberForm> {
    let Identity::File { device, inode, generation } = member.identity else { return None };
    let path = path::to_text(&member.name);
    let &Member { start, len, modified, changed, .. } = member;
    Some(MemberForm { path, start, len, device, inode, generation, modified, changed })
}

fn member(form: MemberForm) -> Result<Member> {
    let MemberForm { path, start, len, device, inode, generation, modified, changed } = form;
    let identity = Identity::File { device, inode, generation };
    Ok(Member { name: path::from_text(&path)?, start, len, identity, modified, changed })
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str, bytes: &mut Vec<u8>) -> Result<()> {
    for digits in text.as_bytes().chunks(2) {
        let byte = (digits.len() == 2).then(|| path::hex(digits)).flatten();
        bytes.push(byte.ok_or_else(|| Error::corrupt("inline bytes are pairs of hexadecimal digits"))?);
    }
    Ok(())
}

fn identity_form(identity: &Identity) -> Option<IdentityForm> {
    match identity.clone() {
        Identity::File { device, inode, generation } => {
            Some(IdentityForm::File { device, inode, generation })
        }
        Identity::Object { key, tag } => Some(IdentityForm::Object { key, tag }),
        // What is unique to one process means nothing in a file.
        Identity::Unique(_) => None,
    }
}

fn identity(form: IdentityForm) -> Identity {
    match form {
        IdentityForm::File { device, inode, generation } => Identity::File { device, inode, generation },
        IdentityForm::Object { key, tag } => Identity::Object { key, tag },
    }
}
