//! What the contract, `docs/design.md`, says in the same words as the code.

use std::path::Path;

use fanfold::host::invariant::Invariant;

#[test]
fn the_design_lists_the_same_invariants() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/design.md");
    let design = std::fs::read_to_string(file).expect("the contract can be read");
    let rows: Vec<(&str, &str)> = design
        .lines()
        .filter_map(|line| line.strip_prefix("| **")?.strip_suffix(" |")?.split_once(" | "))
        .filter_map(|(head, text)| Some((head.split_once("**")?.0, text)))
        .collect();
    let listed: Vec<(&str, &str)> =
        Invariant::ALL.iter().map(|invariant| (invariant.id(), invariant.text())).collect();
    assert_eq!(rows, listed);
}
