//! What the contract, `docs/design.md`, says in the same words as the auditor.

use std::path::Path;

use auditor::{Invariant, Model, Verdict};

fn design() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/design.md");
    std::fs::read_to_string(file).expect("the contract can be read")
}

#[test]
fn the_sentences_are_those_of_the_design() {
    let design = design();
    let all =
        Verdict { model: Model::Ledger, has_views: true, expects: true, ..Verdict::default() };
    for invariant in Invariant::ALL.into_iter().filter(|one| one.to_string().starts_with('F')) {
        let row = format!("| **{invariant}** ");
        let row = design.lines().find(|line| line.starts_with(&row)).expect("a row of it");
        let sentence = invariant.checked(&all).expect("this audit checks it");
        assert_eq!(row.rsplit(" | ").next(), Some(&*format!("{sentence} |")));
    }
}

/// A test of the digest itself expects the same one.
#[test]
fn the_design_shows_the_digest_of_an_example() {
    assert!(
        design()
            .contains("`{\"account\":\"cash\",\"amount\":100}` has the digest `2dbcd70c03015900`")
    );
}
