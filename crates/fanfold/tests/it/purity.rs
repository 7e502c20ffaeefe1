//! The dependencies between crates: `fanfold` <- `fanfold-pipeline` <- providers <- hosts <- binaries.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, PackageId};

/// The crates below the binaries, by layer from the bottom up. No crate may depend on one of its own layer or of a layer
/// above. Crates that are not listed are binaries or tests.
const LAYERS: [&[&str]; 5] = [
    &["fanfold"],
    &["fanfold-pipeline", "fanfold-ledger"],
    &["fanfold-embedded", "fanfold-aws", "fanfold-otel"],
    &["fanfold-http", "fanfold-sim"],
    &["fanfold-lambda"],
];

/// Crates that may have only these dependencies in the workspace.
const EXACTLY: [(&str, &[&str]); 9] = [
    ("fanfold", &[]),
    ("fanfold-ledger", &["fanfold"]),
    ("fanfold-pipeline", &["fanfold"]),
    ("fanfold-embedded", &["fanfold", "fanfold-pipeline"]),
    ("fanfold-aws", &["fanfold", "fanfold-pipeline"]),
    ("fanfold-otel", &["fanfold", "fanfold-pipeline"]),
    ("fanfold-auditor", &[]),
    ("fake-target", &[]),
    ("fanfold-loadtest", &["fanfold-auditor"]),
];

/// Prefixes of crates that must not be in the dependency tree of these.
const NEVER: [(&str, &[&str]); 4] = [
    ("fanfold", &["tokio", "fjall", "aws", "lambda"]),
    ("fanfold-ledger", &["tokio", "fjall", "aws", "lambda"]),
    ("fanfold-pipeline", &["fjall", "aws", "lambda"]),
    ("fanfold-embedded", &["aws", "lambda"]),
];

/// The crates that test Fanfold from outside. They and their tests may link each other, and no
/// other crate of the workspace: code that they shared with Fanfold would hide a bug of both.
const OUTSIDE: [&str; 3] = ["fanfold-auditor", "fake-target", "fanfold-loadtest"];

/// The dependency tree, without dependencies of tests.
struct Tree {
    metadata: Metadata,
    below: BTreeMap<PackageId, BTreeSet<PackageId>>,
}

impl Tree {
    fn read() -> Self {
        let mut command = MetadataCommand::new();
        command.manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        command.features(CargoOpt::AllFeatures);
        let metadata = command.exec().expect("`cargo metadata` answers");
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let built = |kind| matches!(kind, DependencyKind::Normal | DependencyKind::Build);
        let below = nodes.map(|node| {
            let deps = node.deps.iter();
            let deps = deps.filter(|dep| dep.dep_kinds.iter().any(|info| built(info.kind)));
            (node.id.clone(), deps.map(|dep| dep.pkg.clone()).collect())
        });
        Self { below: below.collect(), metadata }
    }

    fn name(&self, id: &PackageId) -> &str {
        &self.metadata[id].name
    }

    /// The crates of the workspace, each with the ones it depends on.
    fn workspace(&self) -> BTreeMap<&str, (&PackageId, BTreeSet<&str>)> {
        let members: BTreeSet<&PackageId> = self.metadata.workspace_members.iter().collect();
        let direct = |id: &PackageId| {
            let inside = self.below[id].iter().filter(|id| members.contains(id));
            inside.map(|id| self.name(id)).collect()
        };
        members.iter().map(|id| (self.name(id), (*id, direct(id)))).collect()
    }

    /// All crates that are built for a crate, without itself.
    fn all_below(&self, id: &PackageId) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&PackageId> = self.below[id].iter().collect();
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(&self.below[id]);
            }
        }
        found.into_iter().map(|id| self.name(id)).collect()
    }
}

#[test]
fn no_crate_depends_on_a_layer_above_it() {
    let tree = Tree::read();
    let workspace = tree.workspace();
    for (name, expected) in EXACTLY {
        if let Some((_, depends_on)) = workspace.get(name) {
            assert_eq!(*depends_on, expected.iter().copied().collect(), "{name}");
        }
    }
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    for (name, (_, depends_on)) in &workspace {
        let (Some(own), name) = (layer(name), name) else { continue };
        for below in depends_on {
            assert!(layer(below).is_some_and(|layer| layer < own), "{name} depends on {below}");
        }
    }
    assert!(workspace.contains_key("fanfold") && workspace.contains_key("fanfold-pipeline"));
}

#[test]
fn the_core_has_no_runtime_no_store_and_no_cloud_in_its_tree() {
    let tree = Tree::read();
    let workspace = tree.workspace();
    for (name, never) in NEVER {
        let Some((id, _)) = workspace.get(name) else { continue };
        for below in tree.all_below(id) {
            assert!(
                !never.iter().any(|start| below.starts_with(start)),
                "{name} is built with {below}"
            );
        }
    }
    // An empty tree would pass every check.
    let (id, _) = workspace["fanfold"];
    assert!(tree.all_below(id).contains("serde_json"));
}

#[test]
fn crates_that_test_from_outside_link_no_crate_of_fanfold() {
    let tree = Tree::read();
    let workspace = tree.workspace();
    let nodes = tree.metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    // Dependencies of tests count, too.
    let direct: BTreeMap<_, _> = nodes.map(|node| (&node.id, &node.deps)).collect();
    for name in OUTSIDE {
        let (id, _) = workspace[name];
        let linked = direct[id].iter().map(|dep| tree.name(&dep.pkg));
        for linked in linked.filter(|linked| workspace.contains_key(linked)) {
            assert!(OUTSIDE.contains(&linked), "{name} links {linked}");
        }
    }
    let (id, _) = workspace["fanfold-loadtest"];
    assert!(direct[id].iter().any(|dep| tree.name(&dep.pkg) == "fake-target"), "no tests' links");
}
