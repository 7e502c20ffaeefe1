//! The line of a panic in the log of a Lambda.

use std::io::{self, Write};
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex};

use fanfold_pipeline::panics;
use serde_json::Value;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;

/// A writer that keeps everything.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The template's metric filter matches JSON lines, not the plain text that a panic would print.
#[test]
fn every_panic_is_a_line_of_json() {
    let lines = Lines::default();
    let log = fanfold_lambda::lines(Targets::new().with_default(Level::INFO), lines.clone());
    let before = take_hook();
    panics::log_all();
    tracing::subscriber::with_default(log, || {
        catch_unwind(|| panic!("a stage\nhas a bug")).unwrap_err();
    });
    set_hook(before);

    let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> =
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [bug] = &lines[..] else { panic!("{written}") };
    assert_eq!((&bug["level"], &bug["alarm"]), (&"ERROR".into(), &"panic".into()));
    let panic = bug["panic"].as_str().unwrap();
    assert!(panic.contains("a stage has a bug") && panic.contains("panics.rs"), "{panic}");
}
