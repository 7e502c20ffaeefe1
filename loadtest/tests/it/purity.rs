//! No crate of Fanfold is linked, not even into tests: a bug cannot hide by being on both sides.

use std::collections::BTreeSet;

use cargo_metadata::{CargoOpt, MetadataCommand, PackageId};

#[test]
fn nothing_of_the_workspace_is_below() {
    let mut command = MetadataCommand::new();
    command.manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    command.features(CargoOpt::AllFeatures);
    let metadata = command.exec().expect("`cargo metadata` answers");
    let own = metadata.workspace_packages().into_iter().find(|p| p.name == "loadtest");
    let own = own.expect("this is one of the workspace");
    let resolve = metadata.resolve.as_ref().expect("dependencies are resolved");
    let mut found: BTreeSet<&PackageId> = BTreeSet::new();
    let mut open = vec![&own.id];
    while let Some(id) = open.pop() {
        let node = resolve.nodes.iter().find(|node| node.id == *id).expect("it is resolved");
        // Of all kinds: what tests are linked with counts too.
        open.extend(node.deps.iter().map(|dep| &dep.pkg).filter(|dep| found.insert(dep)));
    }
    for id in &metadata.workspace_members {
        assert!(!found.contains(id), "loadtest is built with {id}");
    }
    // A tree that is always empty would show nothing.
    assert!(found.iter().any(|id| metadata[*id].name == "hyper"));
    assert!(found.iter().any(|id| metadata[*id].name == "proptest"));
}
