//! `fanfold new`. `cargo xtask new` builds, tests, runs and loads a project.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::{fanfold, lines, stderr};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Runs `new` in a folder, with Fanfold from `source`.
fn new(folder: &Path, name: &str, source: &str) -> Output {
    let mut command = fanfold(&["new", name, "--fanfold", source]);
    command.current_dir(folder).output().expect("the binary starts")
}

/// The paths of all files below a folder, relative to it, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(folder).expect("it is below").to_owned());
            }
        }
    }
    found.sort();
    found
}

#[track_caller]
fn refused(output: &Output, code: i32, says: &str) {
    assert_eq!(lines(output, code), Vec::<String>::new());
    let error = stderr(output);
    let first = error.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: ") && first.contains(says), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_project_has_all_files_of_the_template_with_its_own_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let printed = lines(&new(folder.path(), "my-rooms", ROOT), 0).join("\n");
    let project = folder.path().join("my-rooms");

    let template = files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/template")));
    let renamed = |path: PathBuf| match path.to_str() {
        Some("Cargo.toml.template") => PathBuf::from("Cargo.toml"),
        _ => path,
    };
    let mut expected: Vec<PathBuf> = template.into_iter().map(renamed).collect();
    expected.sort();
    assert_eq!(files(&project), expected);

    for file in &expected {
        let text = fs::read_to_string(project.join(file)).expect("it is text");
        for left in ["my-app", "my_app", "@fanfold", "@source@", "@loadtest@", "lambda/ledger"] {
            assert!(!text.contains(left), "{}: {left}", file.display());
        }
    }
    let read = |file: &str| fs::read_to_string(project.join(file)).expect("it is text");
    let crates = fs::canonicalize(ROOT).expect("it is there").join("crates/fanfold");
    let dependency = format!("\nfanfold = {{ path = {crates:?} }}\n");
    assert!(read("Cargo.toml").contains(&dependency), "{}", read("Cargo.toml"));
    assert!(read("src/main.rs").contains("fanfold_cli::main(my_rooms::app())"));
    for template in ["core", "view"] {
        let text = read(&format!("infra/{template}.yaml"));
        assert!(text.contains("Code: ../target/lambda/my-rooms-lambda/"), "{template}");
    }
    let operate = read("infra/operate.md");
    assert!(operate.contains("\nNAME=my-rooms "), "{operate}");
    assert!(operate.contains("\nVIEWS='rooms agenda' "), "{operate}");
    let pages = fs::canonicalize(ROOT).expect("it is there");
    for link in operate.split("](").skip(1).filter_map(|text| text.split(')').next()) {
        let is_here = operate.lines().any(|line| anchor(line).as_deref() == Some(link));
        let path = link.split('#').next().unwrap_or_default();
        let is_there = Path::new(path).starts_with(&pages) && Path::new(path).is_file();
        assert!(is_here || is_there, "{link}");
    }
    // The example that it prints is that of the app.
    let request = printed.lines().find_map(|line| line.split("-d '").nth(1)).expect("a request");
    assert!(read("src/lib.rs").contains(request.trim_end_matches('\'')), "{printed}");
    assert!(printed.contains("  cd my-rooms\n  cargo test\n  cargo run -- up"), "{printed}");
}

/// The anchor of a heading.
fn anchor(line: &str) -> Option<String> {
    let text = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -".contains(*c));
    Some(format!("#{}", kept.collect::<String>().replace(' ', "-")))
}

#[test]
fn a_project_may_name_fanfold_by_a_git_url_and_be_in_any_new_or_empty_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("empty")).expect("a folder");
    for path in ["some/where", "empty"] {
        let url = "https://git.example/a\"b";
        let mut command = fanfold(&["new", "rooms", "--fanfold", url, "--path", path]);
        let output = command.current_dir(folder.path()).output().expect("the binary starts");
        lines(&output, 0);
        let project = folder.path().join(path);
        let manifest = fs::read_to_string(project.join("Cargo.toml")).expect("it is text");
        let dependency = "\nfanfold-cli = { git = \"https://git.example/a\\\"b\" }\n";
        assert!(manifest.contains(dependency), "{manifest}");
        let readme = fs::read_to_string(project.join("README.md")).expect("it is text");
        let install = "cargo install --git 'https://git.example/a\"b' fanfold-loadtest\n";
        assert!(readme.contains(install), "{readme}");
    }
    let package = fs::read_to_string(Path::new(ROOT).join("loadtest/Cargo.toml")).expect("text");
    assert!(package.contains("\nname = \"fanfold-loadtest\"\n"), "{package}");
}

#[test]
fn a_git_source_may_have_a_commit_and_the_short_form_of_ssh() {
    let folder = tempfile::tempdir().expect("a folder");
    let new = ["new", "rooms", "--fanfold", "git@git.example:team/fanfold.git", "--rev", "abc12"];
    let output = fanfold(&new).current_dir(folder.path()).output().expect("the binary starts");
    lines(&output, 0);
    let read = |file: &str| fs::read_to_string(folder.path().join("rooms").join(file)).unwrap();
    let url = "ssh://git@git.example/team/fanfold.git";
    let dependency = format!("\nfanfold = {{ git = {url:?}, rev = \"abc12\" }}\n");
    assert!(read("Cargo.toml").contains(&dependency), "{}", read("Cargo.toml"));
    let install = format!("cargo install --git '{url}' --rev abc12 fanfold-loadtest\n");
    assert!(read("README.md").contains(&install), "{}", read("README.md"));
    let page = "](https://git.example/team/fanfold/blob/abc12/docs/costs.md";
    assert!(read("infra/operate.md").contains(page));
    for (arguments, says) in [
        (["--fanfold", ROOT, "--rev", "abc12"].as_slice(), "`--rev` is for a git URL"),
        (&["--fanfold", "https://"], "is not the URL of a repository"),
        (&["--fanfold", "https://git.example"], "is not the URL of a repository"),
        (&["--rev", "abc12"], "--fanfold"),
    ] {
        let arguments = [&["new", "more"], arguments].concat();
        let output = fanfold(&arguments).current_dir(folder.path()).output().expect("it starts");
        refused(&output, 2, says);
    }
}

#[test]
fn a_folder_that_is_not_empty_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("rooms")).expect("a folder");
    fs::write(folder.path().join("rooms/letter.txt"), "Dear Ann").expect("a file");
    let output = new(folder.path(), "rooms", ROOT);
    refused(&output, 1, "the folder rooms is not empty: empty it, or choose another one");
    fs::write(folder.path().join("file"), "").expect("a file");
    let output = new(folder.path(), "file", ROOT);
    refused(&output, 1, "file is not a folder: choose a new or empty one");
    assert_eq!(files(folder.path()), [Path::new("file"), Path::new("rooms/letter.txt")]);
}

#[test]
fn a_name_that_cargo_or_aws_would_refuse_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = "a".repeat(32);
    for (name, says) in [
        ("Rooms", "small letters, digits and hyphens"),
        ("1room", "the first a letter"),
        ("my_rooms", "small letters, digits and hyphens"),
        ("", "the first a letter"),
        ("../rooms", "the first a letter"),
        (&long, "at most 31 characters"),
        ("a-view-b", "must not contain `-view-`"),
        ("match", "choose another name"),
        ("test", "choose another name"),
        ("serde", "choose another name"),
    ] {
        refused(&new(folder.path(), name, ROOT), 2, says);
    }
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn without_a_right_source_of_fanfold_the_error_says_how_to_name_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().to_str().expect("it is text");
    refused(&new(folder.path(), "rooms", empty), 2, "it has no `crates/fanfold/Cargo.toml`");
    refused(&new(folder.path(), "rooms", "nowhere"), 2, "neither a folder nor a URL");
    let mut command = fanfold(&["new", "rooms"]);
    let output = command.current_dir(folder.path()).output().expect("the binary starts");
    refused(&output, 2, "no version of Fanfold is published yet: add `--fanfold <FOLDER>`");
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

/// Lines of a file without comments and blank lines.
fn code_lines(file: &str) -> usize {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/template")).join(file);
    let text = fs::read_to_string(&path).expect(file);
    let comment = if file.ends_with(".rs") { "//" } else { "#" };
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with(comment);
    text.lines().filter(is_code).count()
}

#[test]
fn the_readme_says_how_many_lines_a_project_has() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("text");
    for files in [
        &["src/lib.rs"][..],
        &["src/views.rs"],
        &["src/main.rs", "src/bin/lambda.rs"],
        &["tests/decisions.rs", "tests/hosted.rs"],
        &["infra/template.yaml"],
        &["loadtest.yaml"],
    ] {
        let lines: usize = files.iter().map(|file| code_lines(file)).sum();
        let end = format!("(`{}`) | {lines} |", files.join("`, `"));
        assert!(readme.lines().any(|line| line.ends_with(&end)), "no line ends with {end}");
    }
}
