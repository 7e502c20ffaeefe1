//! The calls by which a process changed a folder, and what a crash after any of them leaves.
//!
//! There are two kinds of crash. If the process ends, everything it did is kept. If the machine
//! loses power, only what was synced of each file and folder is kept. Syncing a file also makes its
//! name durable, as the file systems of Linux do; the model assumes nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes before the paths and data of a call: six numbers of eight bytes.
const HEADER_BYTES: usize = 48;
const O_CREAT: u64 = 0o100;
const O_TRUNC: u64 = 0o1000;
const AT_REMOVEDIR: u64 = 0x200;

/// One step of a record.
pub(super) enum Step {
    Call(Call),
    /// An answer of the HTTP API: its first bytes.
    Answer(String),
    /// A call that failed.
    Failed,
}

pub(super) enum Call {
    Open { path: PathBuf, ino: u64, truncates: bool },
    Write { ino: u64, at: usize, data: Vec<u8> },
    SetLen { ino: u64, len: u64 },
    Sync { ino: u64, path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Unlink(PathBuf),
    MakeFolder(PathBuf),
    RemoveFolder(PathBuf),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, .. } => write!(f, "open {}", path.display()),
            Self::Write { ino, at, data } => {
                write!(f, "write {} bytes at {at} of file {ino}", data.len())
            }
            Self::SetLen { ino, len } => write!(f, "set the length of file {ino} to {len}"),
            Self::Sync { path, .. } => write!(f, "sync {}", path.display()),
            Self::Rename { from, to } => write!(f, "rename {} to {}", from.display(), to.display()),
            Self::Unlink(path) => write!(f, "unlink {}", path.display()),
            Self::MakeFolder(path) => write!(f, "make the folder {}", path.display()),
            Self::RemoveFolder(path) => write!(f, "remove the folder {}", path.display()),
        }
    }
}

/// Reads a record that `shim.c` has written. Makes paths relative to `folder`.
pub(super) fn read(record: &Path, folder: &Path) -> Vec<Step> {
    let bytes = fs::read(record).expect("a record");
    let mut rest = &bytes[..];
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (header, more) = rest.split_at(HEADER_BYTES);
        let numbers: Vec<u64> = header
            .chunks_exact(8)
            .map(|number| u64::from_le_bytes(number.try_into().expect("eight bytes")))
            .collect();
        let [nr, ino, at, flags, one, two] = numbers[..] else { panic!("six numbers") };
        let (one, more) = more.split_at(one as usize);
        let (two, more) = more.split_at(two as usize);
        rest = more;
        let path = |bytes: &[u8]| {
            let path = PathBuf::from(String::from_utf8(bytes.to_vec()).expect("a path is text"));
            path.strip_prefix(folder).unwrap_or(&path).to_owned()
        };
        steps.push(match nr {
            // `open`, `creat`, `openat`
            2 | 85 | 257 => {
                let flags = if nr == 85 { O_CREAT | O_TRUNC } else { flags };
                let truncates = flags & O_TRUNC != 0;
                Step::Call(Call::Open { path: path(one), ino, truncates })
            }
            1 => Step::Call(Call::Write { ino, at: at as usize, data: two.to_vec() }),
            77 => Step::Call(Call::SetLen { ino, len: at }),
            74 | 75 => Step::Call(Call::Sync { ino, path: path(one) }),
            82 | 264 | 316 => Step::Call(Call::Rename { from: path(one), to: path(two) }),
            87 => Step::Call(Call::Unlink(path(one))),
            263 if flags & AT_REMOVEDIR == 0 => Step::Call(Call::Unlink(path(one))),
            84 | 263 => Step::Call(Call::RemoveFolder(path(one))),
            83 | 258 => Step::Call(Call::MakeFolder(path(one))),
            44 => Step::Answer(String::from_utf8_lossy(two).into_owned()),
            u64::MAX => Step::Failed,
            nr => panic!("the model does not know the system call {nr}"),
        });
    }
    steps
}

/// The content of a file: the written bytes, and zeros up to its length.
#[derive(Clone, Default)]
pub(super) struct Content {
    bytes: Arc<Vec<u8>>,
    len: u64,
    /// The number of changes to files before this content, which is unique for each content.
    version: u64,
}

impl Content {
    fn write(&mut self, at: usize, data: &[u8]) {
        let bytes = Arc::make_mut(&mut self.bytes);
        bytes.resize(bytes.len().max(at + data.len()), 0);
        bytes[at..at + data.len()].copy_from_slice(data);
        self.len = self.len.max(bytes.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if (len as usize) < self.bytes.len() {
            Arc::make_mut(&mut self.bytes).truncate(len as usize);
        }
        self.len = len;
    }
}

/// Files and folders (`None`) by their paths.
pub(super) type Tree = BTreeMap<PathBuf, Option<Content>>;

#[derive(Clone)]
enum Node {
    File {
        now: Content,
        synced: Content,
    },
    /// The indexes of nodes, by name.
    Folder {
        now: BTreeMap<String, usize>,
        synced: BTreeMap<String, usize>,
    },
}

/// A folder, as processes see it and as it is synced to disk.
pub(super) struct Disk {
    nodes: Vec<Node>,
    by_ino: HashMap<u64, usize>,
    versions: u64,
}

impl Disk {
    /// An empty root, in which the folder does not exist yet.
    pub(super) fn new() -> Self {
        let root = Node::Folder { now: BTreeMap::new(), synced: BTreeMap::new() };
        Self { nodes: vec![root], by_ino: HashMap::new(), versions: 0 }
    }

    fn find(&self, path: &Path) -> Option<usize> {
        path.iter().try_fold(0, |at, name| match &self.nodes[at] {
            Node::Folder { now, .. } => now.get(name.to_str()?).copied(),
            Node::File { .. } => None,
        })
    }

    fn entries(&mut self, folder: &Path) -> &mut BTreeMap<String, usize> {
        let at = self.find(folder).unwrap_or_else(|| panic!("{} is not known", folder.display()));
        match &mut self.nodes[at] {
            Node::Folder { now, .. } => now,
            Node::File { .. } => panic!("{} is a file", folder.display()),
        }
    }

    fn add(&mut self, path: &Path, node: Node) -> usize {
        self.nodes.push(node);
        let at = self.nodes.len() - 1;
        self.put(path, at);
        at
    }

    fn put(&mut self, path: &Path, at: usize) {
        self.entries(above(path)).insert(name(path), at);
    }

    fn take(&mut self, path: &Path) -> usize {
        let taken = self.entries(above(path)).remove(&name(path));
        taken.unwrap_or_else(|| panic!("{} is not there", path.display()))
    }

    fn file(&mut self, ino: u64) -> &mut Content {
        self.versions += 1;
        let version = self.versions;
        match &mut self.nodes[self.by_ino[&ino]] {
            Node::File { now, .. } => {
                now.version = version;
                now
            }
            Node::Folder { .. } => panic!("a folder is written to"),
        }
    }

    pub(super) fn apply(&mut self, call: &Call) {
        match call {
            Call::Open { path, ino, truncates } => {
                let at = match self.find(path) {
                    Some(at) => at,
                    None => self.add(
                        path,
                        Node::File { now: Content::default(), synced: Content::default() },
                    ),
                };
                self.by_ino.insert(*ino, at);
                if *truncates {
                    self.file(*ino).set_len(0);
                }
            }
            Call::Write { ino, at, data } => self.file(*ino).write(*at, data),
            Call::SetLen { ino, len } => self.file(*ino).set_len(*len),
            Call::Sync { ino, path } => {
                let Some(at) = self.find(path).or_else(|| self.by_ino.get(ino).copied()) else {
                    return;
                };
                match &mut self.nodes[at] {
                    Node::File { now, synced } => {
                        *synced = now.clone();
                        self.sync_name(path);
                    }
                    Node::Folder { now, synced } => *synced = now.clone(),
                }
            }
            Call::Rename { from, to } => {
                let at = self.take(from);
                self.put(to, at);
            }
            Call::Unlink(path) | Call::RemoveFolder(path) => {
                self.take(path);
            }
            Call::MakeFolder(path) => {
                self.add(path, Node::Folder { now: BTreeMap::new(), synced: BTreeMap::new() });
            }
        }
    }

    /// Makes the names of a file and of the folders above it durable.
    fn sync_name(&mut self, path: &Path) {
        for path in path.ancestors().filter(|path| *path != Path::new("")) {
            let (Some(at), Some(above)) = (self.find(path), self.find(above(path))) else { return };
            if let Node::Folder { synced, .. } = &mut self.nodes[above] {
                synced.insert(name(path), at);
            }
        }
    }

    /// What is kept if the process ends now, or, if `synced`, if the machine loses power now.
    pub(super) fn tree(&self, synced: bool) -> Tree {
        let mut tree = Tree::new();
        self.gather(0, Path::new(""), synced, &mut tree);
        tree
    }

    fn gather(&self, at: usize, path: &Path, only_synced: bool, tree: &mut Tree) {
        match &self.nodes[at] {
            Node::File { now, synced } => {
                let content = if only_synced { synced } else { now };
                tree.insert(path.to_owned(), Some(content.clone()));
            }
            Node::Folder { now, synced } => {
                tree.insert(path.to_owned(), None);
                for (name, at) in if only_synced { synced } else { now } {
                    self.gather(*at, &path.join(name), only_synced, tree);
                }
            }
        }
    }
}

fn above(path: &Path) -> &Path {
    path.parent().expect("the folder itself is made by the test")
}

fn name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
}

/// Creates a tree in an empty folder.
pub(super) fn make(tree: &Tree, folder: &Path) {
    for (path, content) in tree {
        let path = folder.join(path);
        match content {
            None => fs::create_dir_all(path).expect("a folder"),
            Some(content) => {
                fs::write(&path, &*content.bytes).expect("room");
                let file = fs::File::options().write(true).open(&path).expect("a file");
                file.set_len(content.len).expect("a hole");
            }
        }
    }
}

/// Checks that a folder has exactly this tree.
#[track_caller]
pub(super) fn assert_is(tree: &Tree, folder: &Path) {
    let mut found = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        found.insert(next.strip_prefix(folder).expect("it is within").to_owned());
        for entry in fs::read_dir(next).expect("a folder").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => {
                    found.insert(path.strip_prefix(folder).expect("it is within").to_owned());
                }
            }
        }
    }
    let expected: HashSet<PathBuf> = tree.keys().cloned().collect();
    assert_eq!(found, expected, "the record is not complete");
    for (path, content) in tree {
        let Some(content) = content else { continue };
        let bytes = fs::read(folder.join(path)).expect("a file");
        assert_eq!(bytes.len() as u64, content.len, "{}", path.display());
        let (written, hole) = bytes.split_at(content.bytes.len());
        assert!(written == &**content.bytes && hole.iter().all(|byte| *byte == 0), "{path:?}");
    }
}

/// A hash by which equal trees are found.
pub(super) fn digest(tree: &Tree) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (path, content) in tree {
        (path, content.as_ref().map(|content| content.version)).hash(&mut hasher);
    }
    hasher.finish()
}
