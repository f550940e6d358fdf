use super::*;
use crate::{Attribute, Entry, Stat};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file system of names alone: directories end in `/`, links hold their target, all else are files.
struct Names(BTreeMap<&'static str, &'static str>);

impl Names {
    fn path(&self, inode: Inode) -> &'static str {
        self.0.keys().nth(usize::try_from(inode.0).unwrap()).unwrap()
    }

    fn inode(&self, path: &str) -> Option<Inode> {
        self.0.keys().position(|k| *k == path).map(|i| Inode(u64::try_from(i).unwrap()))
    }
}

impl FileSystem for Names {
    fn kind(&self) -> &'static str {
        "names"
    }
    fn label(&self) -> String {
        String::new()
    }
    fn root(&self) -> Inode {
        self.inode("/").unwrap()
    }
    fn stat(&self, inode: Inode) -> Result<Stat> {
        let path = self.path(inode);
        let kind = match self.0[path] {
            "" if path.ends_with('/') => Kind::Directory,
            "" => Kind::File,
            _ => Kind::Symlink,
        };
        let at = crate::Time::default();
        Ok(Stat {
            inode,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            links: 1,
            len: 0,
            stored: None,
            accessed: at,
            modified: at,
            changed: at,
            born: None,
            device: None,
        })
    }
    fn list(&self, _: Inode, _: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        Ok(())
    }
    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let path = format!("{}{}", self.path(directory), std::str::from_utf8(name).unwrap());
        Ok(self.inode(&path).or_else(|| self.inode(&format!("{path}/"))))
    }
    fn target(&self, link: Inode) -> Result<Vec<u8>> {
        let target = self.0[self.path(link)];
        Ok(if target == "LONG" { vec![b'x'; MAX_TARGET_BYTES.saturating_add(1)] } else { target.into() })
    }
    fn attributes(&self, _: Inode) -> Result<Vec<Attribute>> {
        Ok(Vec::new())
    }
    fn file(&self, _: Inode) -> Result<Arc<chart::Disk>> {
        Err(Error::unsupported("names have no bytes"))
    }
}

fn names() -> Names {
    Names(BTreeMap::from([
        ("/", ""),
        ("/etc/", ""),
        ("/etc/passwd", ""),
        ("/etc/self", "."),
        ("/usr/", ""),
        ("/usr/lib/", ""),
        ("/usr/lib/x.so", ""),
        ("/usr/share/", ""),
        ("/usr/share/escape", "../../../../../etc/passwd"),
        ("/usr/share/up", "../lib/../../lib//./x.so"),
        ("/lib", "usr/lib"),
        ("/abs", "/usr/share/"),
        ("/loop", "loop2"),
        ("/loop2", "/loop"),
        ("/long", "LONG"),
        ("/dangling", "nowhere"),
    ]))
}

#[test]
fn links_lead_nowhere_but_inside() {
    let fs = names();
    for (path, found) in [
        ("/", "/"),
        ("", "/"),
        ("/..//../.", "/"),
        ("/etc/passwd", "/etc/passwd"),
        ("/lib/x.so", "/usr/lib/x.so"),
        ("/lib", "/usr/lib"),
        ("/lib/..", "/usr"),
        ("/abs/escape", "/etc/passwd"),
        ("/abs/up", "/usr/lib/x.so"),
        ("/etc/self/self/passwd", "/etc/passwd"),
        ("/etc/../../..//etc/", "/etc"),
    ] {
        let (inode, at) = resolve_to(&fs, Path::new(path)).unwrap();
        assert_eq!(at, Path::new(found), "{path}");
        assert_eq!(fs.path(inode).trim_end_matches('/'), found.trim_end_matches('/'), "{path}");
    }
}

#[test]
fn what_leads_nowhere_is_said() {
    let fs = names();
    for (path, kind, word) in [
        ("/etc/shadow", chart::Kind::NotFound, "/etc/shadow"),
        ("/dangling", chart::Kind::NotFound, "/nowhere"),
        ("/etc/passwd/x", chart::Kind::Invalid, "/etc/passwd is no directory"),
        ("/etc/passwd/..", chart::Kind::Invalid, "no directory"),
        ("/loop", chart::Kind::Invalid, "40 symbolic links"),
        ("/long", chart::Kind::Corrupt, "4097 bytes"),
    ] {
        let e = resolve(&fs, Path::new(path)).unwrap_err();
        assert!(e.kind() == kind && e.to_string().contains(word), "{path}: {e}");
    }
}
