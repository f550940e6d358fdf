//! Which crate may know which: the layer table, and what the manifests say.

use crate::house::Package;

/// A crate's place in the house. An arrow (a dependency) goes to a lower layer, never up, never sideways.
struct Tenant {
    folder: &'static str,
    package: &'static str,
    layer: u8,
}

const fn tenant(folder: &'static str, package: &'static str, layer: u8) -> Tenant {
    Tenant { folder, package, layer }
}

/// The layers, as ARCHITECTURE.md draws them. A new folder in crates/ needs a line here.
const LAYERS: &[Tenant] = &[
    tenant("chart", "chart", 0),
    tenant("io", "io", 1),
    tenant("format", "format", 2),
    tenant("fs", "fs", 2),
    tenant("depot", "depot", 2),
    tenant("serve", "serve", 2),
    tenant("portolan", "portolan", 3),
    tenant("web", "web", 4),
    tenant("cli", "portolan-cli", 5),
];

/// What testkit may see: it states the contracts of chart and io, and feeds them format's and portolan's disks.
const TESTKIT_SEES: &[&str] = &["chart", "io", "format", "portolan"];

/// The packages that exist for developing only.
const DEV_ONLY: &[&str] = &["testkit", "xtask", FUZZ];
const FUZZ: &str = "fuzz";

fn layer_of(package: &str) -> Option<u8> {
    LAYERS.iter().find(|tenant| tenant.package == package).map(|tenant| tenant.layer)
}

/// Every arrow that breaks a rule, with both its ends and the rule.
pub(super) fn check(packages: &[Package]) -> Vec<String> {
    let mut violations = Vec::new();
    for package in packages {
        if layer_of(&package.name).is_none() && !DEV_ONLY.contains(&package.name.as_str()) {
            violations.push(format!(
                "{}: package `{}` has no layer: give it a line in LAYERS, xtask/src/layers/arrows.rs",
                package.dir.display(),
                package.name
            ));
        }
        for dependency in &package.dependencies {
            if let Some(rule) = broken(&package.name, &dependency.name, dependency.dev) {
                let kind = if dependency.dev { " (dev-dependency)" } else { "" };
                violations.push(format!("{} -> {}{kind}: {rule}", package.name, dependency.name));
            }
        }
    }
    violations
}

/// The rule that the arrow `from` -> `to` breaks, if it breaks one.
fn broken(from: &str, to: &str, dev: bool) -> Option<String> {
    let ours = layer_of(to).is_some() || DEV_ONLY.contains(&to);
    if !ours || from == FUZZ {
        return None;
    }
    match (from, to) {
        (_, "xtask" | FUZZ) => Some(format!("nothing may depend on {to}")),
        ("xtask", _) => Some("xtask depends on no crate of ours, so that it compiles in seconds".into()),
        ("testkit", _) if TESTKIT_SEES.contains(&to) => None,
        ("testkit", _) => Some(format!("testkit may see only {}", TESTKIT_SEES.join(", "))),
        (_, "testkit") if dev => None,
        (_, "testkit") => Some("testkit is for tests: only a dev-dependency may name it".into()),
        // Tests may compose a crate with a neighbour, as its users will: what it is made of stays apart all the same.
        _ if dev && layer_of(from) == layer_of(to) => None,
        _ => wrong_way(layer_of(from)?, layer_of(to)?),
    }
}

fn wrong_way(from: u8, to: u8) -> Option<String> {
    let rule = "an arrow goes to a lower layer";
    match from.cmp(&to) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(format!(
            "points sideways, both are in layer {to}; {rule}, and crates of one layer never meet"
        )),
        std::cmp::Ordering::Less => Some(format!("points up, from layer {from} to layer {to}; {rule}")),
    }
}

/// Every folder in crates/ that the table does not know.
pub(super) fn check_folders(folders: &[String]) -> Vec<String> {
    let unknown = |folder: &&String| !LAYERS.iter().any(|tenant| tenant.folder == folder.as_str());
    let told = |folder: &String| {
        format!("crates/{folder} has no layer: give it a line in LAYERS, xtask/src/layers/arrows.rs")
    };
    folders.iter().filter(unknown).map(told).collect()
}
