//! Folders that cannot be used: the error is one line that says what to do, and nothing is created.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::json;

use crate::load::{agent, get, post};
use crate::{Up, fanfold, lines, stderr, up_on};

/// Runs `up` on a folder that it must refuse; returns the only line of its standard error.
#[track_caller]
fn refused(folder: &Path) -> String {
    let output = up_on(folder).output().expect("the binary starts");
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    let stderr = stderr(&output);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

/// The names of a folder's files and folders, sorted.
fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> =
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let up = Up::on(folder);
    let before = names(folder);
    let shown = folder.display();
    assert_eq!(
        refused(folder),
        format!(
            "error: another process uses the folder {shown}: stop that process, or choose another folder"
        )
    );
    assert_eq!(names(folder), before);
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
    // After the end the folder is free.
    Up::on(folder);
}

#[test]
fn a_folder_below_a_file_cannot_be_made() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let folder = file.path().join("data");
    let error = refused(&folder);
    let shown = folder.display();
    assert!(
        error.starts_with(&format!("error: the folder {shown} cannot be written to (")),
        "{error}"
    );
    assert!(error.ends_with("): change that, or choose another folder"), "{error}");
}

#[test]
fn a_folder_that_is_read_only_cannot_be_used() {
    let place = tempfile::tempdir().expect("a folder");
    let options = ["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"];
    let Some(mounted) = Mounted::new(place.path(), &options) else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    for folder in [mounted.0.clone(), mounted.0.join("data")] {
        let error = refused(&folder);
        assert!(error.contains("cannot be written to (Read-only file system"), "{error}");
        assert_eq!(error.matches("Read-only").count(), 1, "{error}");
    }
}

#[test]
fn a_folder_of_a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("FORMAT"), "fanfold embedded 2\n").expect("a file");
    let shown = folder.display();
    assert_eq!(
        refused(folder),
        format!(
            "error: the folder {shown} has format 2, this version of fanfold knows up to 1: use a newer version"
        )
    );
    assert_eq!(names(folder), ["FORMAT"]);
}

#[test]
fn a_folder_with_foreign_files_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let shown = folder.display();
    let expected = format!(
        "error: the folder {shown} contains files that fanfold did not create: choose another folder"
    );
    fs::write(folder.join("letter.txt"), "Dear Ann").expect("a file");
    assert_eq!(refused(folder), expected);
    assert_eq!(names(folder), ["letter.txt"]);
    // Also if a foreign file has the name `FORMAT`.
    fs::write(folder.join("FORMAT"), "A4").expect("a file");
    assert_eq!(refused(folder), expected);
    assert_eq!(names(folder), ["FORMAT", "letter.txt"]);
}

/// Creates files with their text, and folders, whose names end with a slash.
fn make(folder: &Path, content: &[(&str, &str)]) {
    for (name, text) in content {
        let path = folder.join(name);
        let above = if name.ends_with('/') { Some(&*path) } else { path.parent() };
        fs::create_dir_all(above.expect("a folder")).expect("a folder");
        if !name.ends_with('/') {
            fs::write(path, text).expect("a file");
        }
    }
}

const WHOLE: &str = "fanfold embedded 1\n";

#[test]
fn a_folder_of_an_interrupted_first_start_can_be_used() {
    let states: &[&[(&str, &str)]] = &[
        &[("LOCK", "")],
        &[("LOCK", ""), ("FORMAT.new", "")],
        &[("FORMAT.new", "fanfold embe")],
        &[("FORMAT.new", WHOLE), ("tables/0.jnl", ""), ("tables/version", "")],
        &[
            ("FORMAT.new", WHOLE),
            ("commands/00000000000000000001.log", "FF"),
            ("tables.probe/x", ""),
        ],
        &[("FORMAT", WHOLE)],
        &[("FORMAT", WHOLE), ("tables/0.jnl", "")],
        &[("FORMAT", WHOLE), ("tables/version", ""), ("tables/keyspaces/", ""), ("commands/", "")],
    ];
    for state in states {
        let folder = tempfile::tempdir().expect("a folder");
        make(folder.path(), state);
        for _ in 0..2 {
            Up::on(folder.path());
            assert_eq!(names(folder.path()), ["FORMAT", "LOCK", "commands", "tables"], "{state:?}");
        }
    }
}

#[test]
fn files_of_file_systems_and_desktops_do_not_make_a_folder_foreign() {
    let others =
        ["lost+found/", ".DS_Store", ".git/config", ".gitkeep", "Thumbs.db", "desktop.ini"];
    let folder = tempfile::tempdir().expect("a folder");
    make(folder.path(), &others.map(|name| (name, "theirs")));
    for _ in 0..2 {
        Up::on(folder.path());
        for other in others.iter().filter(|other| !other.ends_with('/')) {
            assert_eq!(
                fs::read_to_string(folder.path().join(other)).ok().as_deref(),
                Some("theirs")
            );
        }
        assert!(folder.path().join("lost+found").is_dir());
    }
}

#[test]
fn foreign_files_are_neither_used_nor_removed() {
    let foreign: &[&[(&str, &str)]] = &[
        &[("tables/mine", "")],
        &[("commands/", "")],
        &[("FORMAT.new", ""), ("tables/mine", "")],
        &[("FORMAT.new", WHOLE), ("tables/mine", ""), ("letter.txt", "")],
        &[("FORMAT/", "")],
    ];
    for content in foreign {
        let folder = tempfile::tempdir().expect("a folder");
        make(folder.path(), content);
        let before = names(folder.path());
        let error = refused(folder.path());
        assert!(error.contains("contains files that fanfold did not create"), "{error}");
        assert_eq!(names(folder.path()), before);
        assert_eq!(
            folder.path().join("tables").exists(),
            folder.path().join("tables/mine").exists()
        );
    }
}

/// A folder of a process that opened two accounts and was killed.
fn used() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut up = Up::on(folder.path());
    assert_eq!(open(&up, 1), Some(1));
    assert_eq!(open(&up, 2), Some(2));
    up.kill();
    folder
}

/// Opens an account; returns the seq if the command was acknowledged.
pub(crate) fn open(up: &Up, id: u64) -> Option<u64> {
    let command = json!({
        "type": "ledger", "command": "open", "id": id, "user": "ann", "org": "acme",
        "data": {"account": format!("a{id}")},
    });
    let answer = post(&agent(), &format!("{}/command", up.url), &command.to_string());
    answer.ok().filter(|(status, _)| *status == 202).and_then(|(_, answer)| answer["seq"].as_u64())
}

/// The number of entries.
pub(crate) fn tail(up: &Up) -> Option<u64> {
    get(&format!("{}/logs/ledger/org:acme", up.url)).1["tail"].as_u64()
}

#[test]
fn a_folder_without_its_format_is_refused_and_the_error_says_what_to_write() {
    let folder = used();
    let format = folder.path().join("FORMAT");
    for damage in
        [None, Some(&b""[..]), Some(b"\xff\xfe"), Some(b"fanfold embedded\n"), Some(b"A4")]
    {
        match damage {
            None => fs::remove_file(&format).expect("it is there"),
            Some(bytes) => fs::write(&format, bytes).expect("a file"),
        }
        let shown = format.display();
        assert_eq!(
            refused(folder.path()),
            format!(
                "error: the file {shown} is missing or damaged: write the line `fanfold embedded 1` into it if fanfold has made this folder, or choose another folder"
            )
        );
    }
    fs::write(&format, WHOLE).expect("a file");
    assert_eq!(tail(&Up::on(folder.path())), Some(2));
}

#[test]
fn a_folder_with_a_missing_part_is_refused_and_not_started_anew() {
    for part in ["commands", "tables"] {
        let folder = used();
        fs::rename(folder.path().join(part), folder.path().join("moved")).expect("it is there");
        let error = refused(folder.path());
        assert!(error.contains("cannot be opened") && error.contains(part), "{error}");
        assert!(error.contains("missing"), "{error}");
        let _ = fs::remove_dir_all(folder.path().join(part));
        fs::rename(folder.path().join("moved"), folder.path().join(part)).expect("it is there");
        assert_eq!(tail(&Up::on(folder.path())), Some(2));
    }
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let shown = file.path().display();
    let expected = format!("error: {shown} is a file: choose a folder instead");
    assert_eq!(refused(file.path()), expected);
}

#[test]
fn a_link_to_the_folder_works_and_a_broken_link_is_refused() {
    let folder = used();
    let place = tempfile::tempdir().expect("a folder");
    let link = place.path().join("link");
    symlink(folder.path(), &link).expect("a link");
    {
        let up = Up::on(&link);
        assert_eq!(tail(&up), Some(2));
        // The link and its target are the same folder.
        assert!(refused(folder.path()).contains("another process uses the folder"));
    }
    let moved = place.path().join("moved");
    fs::rename(folder.path(), &moved).expect("it is there");
    let shown = (link.display(), folder.path().display());
    assert_eq!(
        refused(&link),
        format!(
            "error: the folder {} is a symbolic link to {}, which does not exist: create that, or choose another folder",
            shown.0, shown.1
        )
    );
    fs::remove_file(&link).expect("it is there");
    symlink(&moved, &link).expect("a link");
    assert_eq!(tail(&Up::on(&link)), Some(2));
    // A relative path works, too.
    let mut command = up_on(Path::new("moved"));
    assert_eq!(tail(&Up::start(command.current_dir(place.path()))), Some(2));
}

#[test]
fn of_two_processes_that_start_on_an_empty_folder_one_gets_it() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("a folder");
        let both: Vec<_> = thread::scope(|scope| {
            let start = || scope.spawn(|| Up::try_start(&mut up_on(folder.path())));
            let both = [start(), start()];
            both.map(|one| one.join().expect("it does not panic")).into_iter().collect()
        });
        let mut hosts = 0;
        for one in &both {
            match one {
                Ok(up) => {
                    hosts += 1;
                    assert_eq!(open(up, 1), Some(1));
                }
                Err(said) => assert!(said.contains("another process uses the folder"), "{said}"),
            }
        }
        assert_eq!(hosts, 1);
    }
}

#[test]
fn a_folder_without_write_permission_is_refused() {
    let folder = used();
    let run = || {
        let mut command = up_on(folder.path());
        // A user without root's rights: `nobody`.
        command.uid(65_534).gid(65_534).output()
    };
    let Ok(output) = run() else {
        println!("skipped: this process may not become another user");
        return;
    };
    let error = stderr(&output);
    let shown = folder.path().display();
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    assert!(
        error.starts_with(&format!(
            "error: the folder {shown} cannot be written to (Permission denied"
        )),
        "{error}"
    );
}

#[test]
fn a_folder_is_created_with_its_parents() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("some/where");
    Up::on(&folder);
    assert_eq!(names(&folder), ["FORMAT", "LOCK", "commands", "tables"]);
    // --data and --in-memory exclude each other.
    let output = fanfold(&["up", "--in-memory", "--data"]).arg(&folder).output();
    assert_eq!(output.expect("the binary starts").status.code(), Some(2));
}

/// A mounted file system. Dropping it unmounts it.
pub(crate) struct Mounted(pub(crate) std::path::PathBuf);

impl Mounted {
    /// Mounts at a folder; `None` if this process has no right to mount, as most have not.
    pub(crate) fn new(at: &Path, options: &[&str]) -> Option<Self> {
        let mounted = Command::new("mount").args(options).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, since a process may still have a file open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
