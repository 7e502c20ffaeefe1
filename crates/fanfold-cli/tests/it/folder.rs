//! Folders that cannot be used: one line that says what to do, and nothing is made there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Up, fanfold, lines, stderr, up_on};

/// The line on standard error; there is no other, and the exit code is 1.
#[track_caller]
fn refused(folder: &Path) -> String {
    let output = up_on(folder).output().expect("the binary starts");
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    let stderr = stderr(&output);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

/// The names of what is in a folder.
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
            "error: the folder {shown} is in use by another process: stop that, or choose another folder"
        )
    );
    assert_eq!(names(folder), before);
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
    // Then it is free.
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
fn a_newer_format_is_left_alone() {
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
fn a_folder_with_other_things_in_it_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let shown = folder.display();
    let expected = format!(
        "error: the folder {shown} holds something else than fanfold's data: choose another folder"
    );
    fs::write(folder.join("letter.txt"), "Dear Ann").expect("a file");
    assert_eq!(refused(folder), expected);
    assert_eq!(names(folder), ["letter.txt"]);
    // Also one that happens to have a file of that name.
    fs::write(folder.join("FORMAT"), "A4").expect("a file");
    assert_eq!(refused(folder), expected);
    assert_eq!(names(folder), ["FORMAT", "letter.txt"]);
}

#[test]
fn a_start_that_broke_off_leaves_a_folder_that_can_be_used() {
    for begun in [&["LOCK"][..], &["LOCK", "FORMAT.new"]] {
        let folder = tempfile::tempdir().expect("a folder");
        for name in begun {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        Up::on(folder.path());
    }
}

#[test]
fn a_folder_is_made_with_those_above_it() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("some/where");
    Up::on(&folder);
    assert_eq!(names(&folder), ["FORMAT", "LOCK", "commands", "tables"]);
    // In memory, nothing is made.
    let output = fanfold(&["up", "--in-memory", "--data"]).arg(&folder).output();
    assert_eq!(output.expect("the binary starts").status.code(), Some(2));
}

/// Something that is mounted until it is dropped.
pub(crate) struct Mounted(pub(crate) std::path::PathBuf);

impl Mounted {
    /// `None`: this process may not, as most may not.
    pub(crate) fn new(at: &Path, options: &[&str]) -> Option<Self> {
        let mounted = Command::new("mount").args(options).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: who still has a file open there must not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
