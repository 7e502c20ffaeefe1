//! The folder goes away under a running process: nothing is acknowledged any more, and it ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::Up;
use crate::folder::{open, tail};

/// Runs a host on `data` in a new place while `goes` takes that away; then it must end by itself.
/// `later` sees what is left.
fn check(goes: impl Fn(&Path), later: impl Fn(&Path)) {
    // With commands on their way, and without: a timer looks, too.
    for is_busy in [true, false] {
        let place = tempfile::tempdir().expect("a folder");
        let place = place.path();
        let up = Up::on(&place.join("data"));
        assert_eq!(open(&up, 1), Some(1));
        goes(place);
        let gone = Instant::now();
        if is_busy {
            for id in 2..5 {
                assert_eq!(open(&up, id), None, "there is no place for it");
            }
        }
        let (code, said) = up.end();
        println!("it ended after {:?}", gone.elapsed());
        assert_eq!(code, Some(1));
        // Tables that lose their files while they are closed may log that behind it.
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        let shown = place.join("data");
        let expected = format!(
            "error: the folder {} was removed, moved or replaced while it was in use: nothing more is accepted; start again on the folder where it is now",
            shown.display()
        );
        assert_eq!(errors, [expected], "{said}");
        later(place);
    }
}

#[test]
fn a_folder_that_is_removed_ends_the_process() {
    let remove = |place: &Path| {
        let deadline = Instant::now() + Duration::from_secs(10);
        // It may be written to at the same time.
        while fs::remove_dir_all(place.join("data")).is_err() {
            assert!(Instant::now() < deadline, "it cannot be removed");
            thread::sleep(Duration::from_millis(1));
        }
    };
    check(remove, |place| assert!(!place.join("data").exists(), "nothing is made there again"));
}

#[test]
fn a_folder_that_is_moved_ends_the_process_and_opens_elsewhere() {
    let moves =
        |place: &Path| fs::rename(place.join("data"), place.join("moved")).expect("it moves");
    check(moves, |place| {
        assert!(!place.join("data").exists(), "nothing is made there again");
        assert_eq!(tail(&Up::on(&place.join("moved"))), Some(1));
    });
}

#[test]
fn a_folder_that_is_replaced_ends_the_process_and_leaves_the_other_alone() {
    let replace = |place: &Path| {
        fs::rename(place.join("data"), place.join("moved")).expect("it moves");
        drop(Up::on(&place.join("data")));
    };
    check(replace, |place| {
        let up = Up::on(&place.join("data"));
        assert_eq!(open(&up, 1), Some(1));
        assert_eq!(tail(&Up::on(&place.join("moved"))), Some(1));
    });
}

#[test]
fn a_link_that_leads_elsewhere_ends_the_process() {
    let change = |place: &Path| {
        // The first time it is a folder: that becomes the target of a link.
        fs::rename(place.join("data"), place.join("target")).expect("it moves");
        fs::create_dir(place.join("other")).expect("a folder");
        symlink(place.join("other"), place.join("data")).expect("a link");
    };
    check(change, |place| assert_eq!(tail(&Up::on(&place.join("target"))), Some(1)));
}

#[test]
fn a_folder_whose_lock_is_removed_is_not_its_own_any_more() {
    let unlock = |place: &Path| fs::remove_file(place.join("data/LOCK")).expect("it is there");
    let place = tempfile::tempdir().expect("a folder");
    let up = Up::on(&place.path().join("data"));
    assert_eq!(open(&up, 1), Some(1));
    unlock(place.path());
    let (code, said) = up.end();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(tail(&Up::on(&place.path().join("data"))), Some(1));
}
