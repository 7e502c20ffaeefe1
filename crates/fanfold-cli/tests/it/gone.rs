//! The folder is removed, moved or replaced under a running process: it acknowledges nothing more,
//! and ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::Up;
use crate::folder::{open, tail};

/// Runs a host on the folder `data` of a new place. After `goes` has changed the folder, the host
/// must end by itself. Then `later` checks what is left.
fn check(goes: impl Fn(&Path), later: impl Fn(&Path)) {
    // With commands after the change, and without: a timer checks the folder, too.
    for is_busy in [true, false] {
        let place = tempfile::tempdir().expect("a folder");
        let place = place.path();
        let up = Up::on(&place.join("data"));
        assert_eq!(open(&up, 1), Some(1));
        goes(place);
        let gone = Instant::now();
        if is_busy {
            for id in 2..5 {
                assert_eq!(open(&up, id), None, "it is acknowledged without a folder");
            }
        }
        let (code, said) = up.end();
        println!("it ended after {:?}", gone.elapsed());
        assert_eq!(code, Some(1));
        // The store may log the loss of its files after the error.
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
        // Fails while the host creates files in it.
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
        // The host opened a folder. Now its path is a link to another folder.
        fs::rename(place.join("data"), place.join("target")).expect("it moves");
        fs::create_dir(place.join("other")).expect("a folder");
        symlink(place.join("other"), place.join("data")).expect("a link");
    };
    check(change, |place| assert_eq!(tail(&Up::on(&place.join("target"))), Some(1)));
}

#[test]
fn a_removed_lock_ends_the_process() {
    let unlock = |place: &Path| fs::remove_file(place.join("data/LOCK")).expect("it is there");
    let place = tempfile::tempdir().expect("a folder");
    let up = Up::on(&place.path().join("data"));
    assert_eq!(open(&up, 1), Some(1));
    unlock(place.path());
    let (code, said) = up.end();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(tail(&Up::on(&place.path().join("data"))), Some(1));
}
