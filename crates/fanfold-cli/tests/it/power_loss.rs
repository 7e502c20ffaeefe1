//! Power loss.
//!
//! The model of a file system: it keeps what was synced. Of the bytes written after a file's last
//! sync it keeps a prefix, or it keeps the length while some pages hold zeros or old data. The tests
//! cut off or damage both logs behind their last sync, independently of each other. A host that
//! starts on the result must answer like one that never stopped.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fanfold_embedded::faults::{data_end, newest_table_log};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::audit::audit;
use crate::crash::seed;
use crate::load::Load;
use crate::{Up, up_on};

/// Power cuts of each test, unless `FANFOLD_CUTS` names another number.
const CUTS: u64 = 12;
/// The unit that a disk writes as a whole or not at all.
const PAGE_BYTES: u64 = 512;

#[test]
fn acknowledged_commands_survive_a_power_cut_at_any_time() {
    cut_after(None);
}

#[test]
fn acknowledged_commands_survive_a_power_cut_before_a_sync_of_commands() {
    cut_after(Some("command_log.written:40"));
}

#[test]
fn acknowledged_commands_survive_a_power_cut_during_the_sync_of_a_checkpoint() {
    // The checkpoint is recorded as synced only after this effect.
    cut_after(Some("checkpoint.saved:2"));
}

fn cut_after(effect: Option<&str>) {
    let seed = seed();
    let mut chance = SmallRng::seed_from_u64(seed);
    let (folder, notes) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir());
    let trace = notes.as_ref().expect("a folder").path().join("synced");
    let mut load = Load::new(seed, 4, 20_000);
    let mut command = up_on(folder.path());
    command.env("FANFOLD_TRACE_SYNCS", &trace);
    if let Some(effect) = effect {
        command.env("FANFOLD_DIE_AFTER", effect);
    }
    let mut up = Up::start(&mut command);
    load.run(&up.url.clone(), || match effect {
        Some(effect) => assert!(up.died(Duration::from_secs(30)).is_some(), "{effect}"),
        None => {
            thread::sleep(Duration::from_millis(chance.random_range(600..1_500)));
            up.kill();
        }
    });
    let synced = read_trace(&trace);
    let cuts = std::env::var("FANFOLD_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    let cuts = cuts.unwrap_or(CUTS);
    let mut set_aside = 0;
    for _ in 0..cuts {
        let copy = tempfile::tempdir().expect("a folder");
        let copy = copy.path();
        copy_folder(folder.path(), copy);
        let logs = [newest_segment(copy), newest_table_log(copy).expect("a log of the tables")];
        let cut = logs.map(|log| {
            let cut = damage(&log, &synced, &mut chance);
            format!("{}: {cut}", log.file_name().expect("a name").display())
        });
        println!("{}", cut.join(", "));
        let up = Up::on(copy);
        audit(&up.url, &load);
        let tables = fs::read_dir(copy.join("tables")).expect("a folder").flatten();
        set_aside += tables.filter(|file| file.path().extension() == Some("cut".as_ref())).count();
    }
    let acknowledged = load.acknowledged();
    println!(
        "{cuts} cuts, {acknowledged} commands acknowledged, {set_aside} ends of logs set aside"
    );
    assert!(acknowledged > 0);
}

/// The number of synced bytes, by file name.
fn read_trace(trace: &Path) -> HashMap<String, u64> {
    let text = fs::read_to_string(trace).expect("a trace");
    let lines = text.lines().filter_map(|line| {
        let (bytes, path) = line.split_once(' ')?;
        let name = Path::new(path).file_name()?.to_str()?.to_owned();
        Some((name, bytes.parse().ok()?))
    });
    lines.collect()
}

fn newest_segment(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("commands")).expect("a folder").flatten();
    files.map(|file| file.path()).max().expect("a segment")
}

/// Damages a log somewhere behind its synced bytes; returns a description.
fn damage(log: &Path, synced: &HashMap<String, u64>, chance: &mut SmallRng) -> String {
    let name = log.file_name().and_then(|name| name.to_str()).expect("a name");
    let end = data_end(log, 0).expect("a log");
    // The command log may end with zeros, which `data_end` does not count.
    let end = if name.ends_with(".log") { fs::metadata(log).expect("a log").len() } else { end };
    let synced = synced.get(name).copied().unwrap_or(0).min(end);
    let mut file = File::options().read(true).write(true).open(log).expect("a log");
    let at = chance.random_range(synced..=end);
    let is_garbage: bool = chance.random();
    let is_cut_off: bool = chance.random();
    let mut bytes = |count: u64| -> Vec<u8> {
        (0..count).map(|_| if is_garbage { chance.random() } else { 0 }).collect()
    };
    if is_cut_off {
        // Cuts the file off, and appends nothing, zeros or garbage.
        let behind = bytes(at % 3 * 3_000);
        file.set_len(at).expect("it can be cut");
        file.seek(SeekFrom::Start(at)).expect("a place");
        file.write_all(&behind).expect("it can be written");
        format!("{synced} of {end} synced, cut at {at}, garbage {is_garbage}: {}", behind.len())
    } else {
        // Loses some pages in the middle.
        let from = at.next_multiple_of(PAGE_BYTES).min(end);
        let lost = bytes(((at % 3 + 1) * PAGE_BYTES).min(end - from));
        file.seek(SeekFrom::Start(from)).expect("a place");
        file.write_all(&lost).expect("it can be written");
        format!("{synced} of {end} synced, {} lost at {from}, garbage {is_garbage}", lost.len())
    }
}

/// Copies all files, and keeps holes as holes.
fn copy_folder(from: &Path, to: &Path) {
    for found in fs::read_dir(from).expect("a folder").flatten() {
        let (source, target) = (found.path(), to.join(found.file_name()));
        if source.is_dir() {
            fs::create_dir(&target).expect("a folder");
            copy_folder(&source, &target);
        } else if source.extension() == Some("jnl".as_ref()) {
            let end = data_end(&source, 0).expect("a log");
            let mut data = vec![0; end as usize];
            File::open(&source).and_then(|mut file| file.read_exact(&mut data)).expect("a log");
            fs::write(&target, data).expect("a copy");
            let bytes = found.metadata().expect("a file").len();
            let copy = File::options().write(true).open(&target).expect("a copy");
            copy.set_len(bytes).expect("a hole");
        } else {
            fs::copy(&source, &target).expect("a copy");
        }
    }
}
