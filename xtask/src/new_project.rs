//! A project of `fanfold new`, used as its author would: tests, `up`, the requests of its README, a load with its audit,
//! the program of its Lambdas, its templates. In the end, with one more view, requests by its OpenAPI document.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::descriptions;
use crate::lambdas;
use crate::load::{self, Host, free_port};
use crate::venv::{Venv, run};

/// Of the project.
const NAME: &str = "booking";
/// How the project's README starts the load.
const LOAD: &str = "loadtest run --target http://127.0.0.1:8081 ";

/// Sections of our manifest that make the project's libraries the same as ours, so that cargo builds none of them again.
const PROFILES: (&str, &str) = ("[profile.dev]", "[profile.release]");
/// Our own crates are not members there, so cargo builds them anew. This makes it quick.
const OURS: [&str; 9] = [
    "fanfold",
    "fanfold-aws",
    "fanfold-cli",
    "fanfold-embedded",
    "fanfold-http",
    "fanfold-lambda",
    "fanfold-ledger",
    "fanfold-pipeline",
    "shared-build",
];

/// Makes a project and does all of the above, with the programs in the folder `built`.
pub(crate) fn check(root: &Path, built: &Path) -> Result<()> {
    let venv = Venv::ready()?;
    let began = Instant::now();
    let project = make(root, built)?;
    let made = began.elapsed();
    cargo(&project, &["test"], &[])?;
    let tested = began.elapsed();
    cargo(&project, &["build"], &[])?;

    let data = tempfile::Builder::new().prefix("fanfold-new-").tempdir()?;
    let port = free_port()?;
    let host = Host::start_program(&built.join(NAME), port, data.path())?;
    requests_of_readme(&project, port)?;
    let answered = began.elapsed();
    println!(
        "== from `fanfold new` to the first answered request: {:.1} s, of which `new` took {:.1} s, \
         `cargo test` {:.1} s, `cargo run -- up` and the request {:.1} s (libraries were built before)",
        answered.as_secs_f64(),
        made.as_secs_f64(),
        (tested - made).as_secs_f64(),
        (answered - tested).as_secs_f64(),
    );
    load(&project, built, port, data.path())?;
    drop(host);

    println!("\n== style of the project");
    // Without our rustfmt.toml, which is in a folder above.
    let defaults = ["--config", "use_small_heuristics=Default"];
    cargo(&project, &[&["fmt", "--check", "--"][..], &defaults].concat(), &[])?;
    // As `cargo clippy` does it, but with the libraries that are built already.
    let clippy = ("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    let deny = ("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    cargo(&project, &["build", "--all-targets"], &[clippy, deny])?;

    println!("\n== Lambdas and templates of the project");
    pack(&project, built, NAME)?;
    let templates = ["core.yaml", "template.yaml", "view.yaml"];
    let templates = templates.map(|name| project.join("infra").join(name));
    run(venv.command("cfn-lint").args(templates))?;

    add_filtered_view(&project)?;
    cargo(&project, &["build"], &[])?;
    let data = tempfile::Builder::new().prefix("fanfold-new-").tempdir()?;
    let port = free_port()?;
    let host = Host::start_program(&built.join(NAME), port, data.path())?;
    descriptions::try_requests(&venv, root, port, data.path())?;
    drop(host);
    Ok(())
}

/// Adds what the example service has not: a view that does not list every event type, with nested types, times and an
/// optional field in its rows.
fn add_filtered_view(project: &Path) -> Result<()> {
    let views = project.join("src/views.rs");
    fs::write(&views, fs::read_to_string(&views)? + FILTERED)?;
    let (app, views) = (project.join("src/lib.rs"), ".view::<Rooms>()");
    let text = fs::read_to_string(&app)?;
    ensure!(text.contains(views), "{} has no `{views}`", app.display());
    fs::write(app, text.replacen(views, &format!("{views}.view::<views::Spans>()"), 1))?;
    Ok(())
}

/// The view that is added.
const FILTERED: &str = r#"
/// `spans`: a row per room, with its first and its latest booking.
pub struct Spans;

/// Two bookings of a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ends {
    pub first: Span,
    pub latest: Option<Span>,
}

/// When a booking is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Span {
    #[serde(with = "fanfold::Rfc3339")]
    pub from: Time,
    #[serde(with = "fanfold::Rfc3339")]
    pub to: Time,
    #[serde(default)]
    pub seats: u32,
}

impl View for Spans {
    const NAME: &'static str = "spans";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Booking::NAME];
    const EVENTS: &'static [(&'static str, u32)] = &[("booked", 2)];
    type Event = Event;
    type Row = Ends;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        let booked = entry.events().iter().filter_map(|(_, event)| booked(event));
        booked.map(|booked| RowKey::from(&booked.room)).collect()
    }

    fn apply(row: Option<Ends>, _: &RowKey, entry: &Recorded<Event>) -> Option<Ends> {
        let booked = entry.events().iter().filter_map(|(_, event)| booked(event));
        booked.fold(row, |row, booked| {
            let Booked { from, to, seats, .. } = booked.clone();
            let span = Span { from, to, seats };
            Some(match row {
                None => Ends { first: span, latest: None },
                Some(row) => Ends { latest: Some(span), ..row },
            })
        })
    }
}

fn booked(event: &Event) -> Option<&Booked> {
    match event {
        Event::Booked(booked) => Some(booked),
        _ => None,
    }
}
"#;

/// Makes a project in a new folder below cargo's target folder, with the `fanfold` in the folder `built`. Returns its
/// folder. Cargo builds it in our target folder, with our versions of all libraries.
pub(crate) fn make(root: &Path, built: &Path) -> Result<PathBuf> {
    let folder = crate::target()?.join("new").join(NAME);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut new = Command::new(built.join("fanfold"));
    run(new.args(["new", NAME, "--fanfold"]).arg(root).arg("--path").arg(&folder))?;
    use_our_libraries(root, &folder)?;
    Ok(folder)
}

/// Makes a project use the libraries that are built already.
pub(crate) fn use_our_libraries(root: &Path, project: &Path) -> Result<()> {
    fs::copy(root.join("Cargo.lock"), project.join("Cargo.lock"))?;
    let manifest = project.join("Cargo.toml");
    let changed = with_our_libraries(root, &fs::read_to_string(&manifest)?)?;
    fs::write(manifest, changed)?;
    Ok(())
}

/// The manifest of a project, with our profile and with the features that `shared-build` requests.
fn with_our_libraries(root: &Path, manifest: &str) -> Result<String> {
    let ours = fs::read_to_string(root.join("Cargo.toml"))?;
    let (from, to) = PROFILES;
    let profile = ours.find(from).zip(ours.find(to)).and_then(|(from, to)| ours.get(from..to));
    let profile = profile.with_context(|| format!("Cargo.toml has no {from} before {to}"))?;
    let (shared, dependencies) = (root.join("crates/shared-build"), "[dependencies]\n");
    ensure!(manifest.contains(dependencies), "the project's manifest has no {dependencies}");
    let with_shared = format!("{dependencies}shared-build = {{ path = {shared:?} }}\n");
    let manifest = manifest.replacen(dependencies, &with_shared, 1);
    let quick = OURS.map(|name| format!("[profile.dev.package.{name}]\nopt-level = 0\n"));
    Ok(format!("{manifest}\n{profile}{}", quick.concat()))
}

/// Builds the program of the project's Lambdas quickly, and puts it where its templates expect it.
pub(crate) fn pack(project: &Path, built: &Path, name: &str) -> Result<()> {
    cargo(project, &["build", "--bins"], &[])?;
    lambdas::pack(built, &format!("{name}-lambda"), &project.join("target/lambda"))
}

/// Runs cargo in a project, with our target folder.
pub(crate) fn cargo(
    project: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<()> {
    let name = project.file_name().unwrap_or_default().display();
    println!("\n== {name}: cargo {}", arguments.join(" "));
    let began = Instant::now();
    let mut command = crate::cargo_command(arguments)?;
    command.current_dir(project).env("CARGO_TARGET_DIR", crate::target()?);
    run(command.envs(environment.iter().copied()))?;
    println!("== {name}: {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Sends what the project's README tells its reader to send, and expects the row that it promises.
fn requests_of_readme(project: &Path, port: u16) -> Result<()> {
    let readme = fs::read_to_string(project.join("README.md"))?;
    let block = readme.split("```sh\n").find(|block| block.starts_with("curl "));
    let block = block.and_then(|block| block.split("```").next());
    let block = block.context("the project's README has no block of `curl`")?;
    let quiet = "curl() { command curl --silent --show-error --fail-with-body \"$@\"; echo; }\n";
    let script = block.replace("localhost:8080", &format!("127.0.0.1:{port}"));
    let output = Command::new("sh").args(["-e", "-c", &format!("{quiet}{script}")]).output();
    let output = output.context("cannot run sh")?;
    let (said, error) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    println!("{}", said.trim_end());
    ensure!(output.status.success(), "a request of the project's README failed: {error}");
    ensure!(said.contains(r#""booking":"kickoff""#), "the agenda does not show the booking");
    Ok(())
}

/// Runs the load of the project's README, and audits it. It runs twice, since its reader may do so.
fn load(project: &Path, built: &Path, port: u16, folder: &Path) -> Result<()> {
    let readme = fs::read_to_string(project.join("README.md"))?;
    let line = readme.lines().find_map(|line| line.strip_prefix(LOAD));
    let line = line.with_context(|| format!("the project's README has no line `{LOAD}…`"))?;
    let report = folder.join("report.json");
    for time in ["first", "second"] {
        println!("\n== load of the project, for the {time} time");
        let mut generator = Command::new(built.join("loadtest"));
        generator
            .current_dir(project)
            .args(["run", "--target", &format!("http://127.0.0.1:{port}")])
            .args(line.split_whitespace())
            .args(["--tenants", "20", "--users", "3", "--duplicates", "0.05", "--model", "none"])
            .arg("--json")
            .arg(&report);
        run(&mut generator).context("the load or its audit failed")?;
        load::check_report(&report, "none")?;
    }
    Ok(())
}
