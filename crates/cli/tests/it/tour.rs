use crate::run::Dir;

#[test]
fn the_tour_ends_well_and_leaves_nothing() {
    let dir = Dir::new();
    let told = dir.ok("tour --dir .").out;
    for word in
        ["1. A disk", "$ portolan create", "$ portolan convert", "identical", "copies would have written"]
    {
        assert!(told.contains(word), "no {word:?} in\n{told}");
    }
    assert!(dir.names().is_empty(), "{:?}", dir.names());
}
