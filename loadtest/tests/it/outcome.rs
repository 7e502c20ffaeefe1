//! How a run ends, and which files it leaves.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fake_target::{Fake, Plant};
use tempfile::TempDir;

use crate::generator::{load, loadtest, run, text};

/// Removes the kept receipts at the printed path.
fn kept(shown: &str) -> PathBuf {
    let path = shown.lines().find_map(|line| line.strip_prefix("The receipts are kept: "));
    let path = PathBuf::from(path.unwrap_or_else(|| panic!("nothing was kept: {shown}")));
    assert!(path.metadata().is_ok_and(|file| file.len() > 0), "{}", path.display());
    std::fs::remove_file(&path).expect("it is there");
    path
}

#[test]
fn a_breach_keeps_the_receipts_also_if_the_report_cannot_be_written() {
    for full in [false, true] {
        let fake = Fake::start(Some(Plant::WrongBalance));
        let line = load(&fake.url);
        let output = match full {
            false => run(&line, &[]),
            // It can be opened, but not written.
            true => run(&format!("{line} --json"), &[Path::new("/dev/full")]),
        };
        let shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(shown.contains("Audit: FAIL"), "{shown}");
        assert_eq!(text(&output.stderr).contains("cannot write /dev/full"), full, "{output:?}");
        kept(&shown);
    }
}

#[test]
fn an_unwritable_output_is_an_error_before_the_load() {
    let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
    for flag in ["--json", "--html"] {
        let began = Instant::now();
        let line = load(&fake.url).replace("--duration 1s", "--duration 60s");
        let output = run(&format!("{line} {flag}"), &[&folder.path().join("no/such/folder")]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("cannot write"), "{output:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn an_unwritable_report_of_a_clean_run_is_an_error() {
    let fake = Fake::start(None);
    let output = run(&format!("{} --json", load(&fake.url)), &[Path::new("/dev/full")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stdout).contains("Audit: PASS"), "{output:?}");
}

#[test]
fn unwritable_receipts_end_the_load_with_an_error() {
    let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there").success());
    let line = load(&fake.url).replace("--duration 1s", "--duration 60s --threads 2");
    let began = Instant::now();
    let mut command = loadtest(&format!("{line} --receipts"), &[&pipe]);
    let reader = std::thread::spawn(move || {
        // Reads a little, and closes the pipe.
        let mut little = [0; 4_096];
        std::fs::File::open(pipe).and_then(|mut file| file.read_exact(&mut little))
    });
    let output = command.output().expect("it starts");
    reader.join().expect("it does not panic").expect("something was written");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("cannot write the receipts") && said.contains("roken pipe"), "{said}");
    assert!(text(&output.stdout).contains("Audit: NOT AUDITED"), "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
