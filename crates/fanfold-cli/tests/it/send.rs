//! `fanfold send`: retries, refusals, outcomes, and what it prints.

use std::fs::File;
use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::scripted::{Reply, Scripted, receipts, requests};
use crate::{Up, fanfold, lines, stderr};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("it is written");
    file
}

fn commands(ids: impl IntoIterator<Item = u64>) -> String {
    let line = |id| {
        format!(
            "{{\"type\":\"ledger\",\"command\":\"open\",\"id\":{id},\"user\":\"ann\",\"org\":\"acme\",\"data\":{{\"account\":\"a{id}\"}}}}\n"
        )
    };
    ids.into_iter().map(line).collect()
}

fn send(url: &str, file: &NamedTempFile, flags: &[&str]) -> Output {
    let mut command = fanfold(&["send", "--url", url, "--file"]);
    command.arg(file.path()).args(flags).output().expect("the binary starts")
}

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// The ids that the server received, by request.
fn ids(server: &Scripted) -> Vec<Vec<u64>> {
    let ids = |body: &String| {
        requests(body).iter().map(|request| request["id"].as_u64().expect("an id")).collect()
    };
    server.bodies("POST /commands").iter().map(ids).collect()
}

#[test]
fn a_temporary_refusal_is_retried_and_no_later_command_overtakes_it() {
    let problem = || json!({"type": "urn:x", "status": 503, "detail": "full"}).to_string();
    let server = Scripted::start(move |number, asked| match number {
        1 => Reply::Status(503, "retry-after: 1\r\n", problem()),
        2 => Reply::Nothing,
        3 => Reply::Status(502, "", "<html>bad gateway</html>".to_owned()),
        // Refuses a part of a batch, at its end.
        4 => receipts(&asked.body, |id| (id > 900).then_some(429)),
        5 => receipts(&asked.body, |id| (id > 999).then_some(503)),
        _ => receipts(&asked.body, |_| None),
    });
    let output = send(&server.url, &file(&commands(1..=1_200)), &["--no-check"]);
    let printed = lines(&output, 0);
    let expected = (1..=1_200).map(|seq| format!(r#"{{"log":"ledger/org:acme","seq":{seq}}}"#));
    assert_eq!(printed, expected.collect::<Vec<_>>());
    let range = |first, last| (first..=last).collect::<Vec<u64>>();
    let second = range(501, 1_000);
    let expected = [
        range(1, 500),
        second.clone(),
        second.clone(),
        second.clone(),
        second,
        range(901, 1_000),
        range(1_000, 1_000),
        range(1_001, 1_200),
    ];
    assert_eq!(ids(&server), expected);
}

#[test]
fn send_ends_after_give_up_and_names_the_line() {
    let server = Scripted::start(|_, asked| receipts(&asked.body, |id| (id == 502).then_some(503)));
    let file = file(&format!("\u{feff}\n{}", commands(1..=1_200)));
    let output = send(&server.url, &file, &["--give-up", "300ms"]);
    let printed = lines(&output, 1);
    assert_eq!(printed.len(), 1_000);
    assert_eq!(json_of(&printed[501])["line"], 503);
    assert_eq!(
        json_of(&printed[501])["unanswered"].as_str().map(|why| why.contains("no (503)")),
        Some(true)
    );
    let said = stderr(&output);
    assert!(
        said.contains(&file.path().display().to_string()) && said.contains("from line 503 on"),
        "{said}"
    );
    assert!(ids(&server).iter().flatten().all(|id| *id <= 1_000), "no later command is sent");
}

#[test]
fn send_with_give_up_waits_for_a_server_that_never_answered() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it has one"));
    drop(listener);
    let output = send(&url, &file(&commands(1..=1)), &["--give-up", "1s"]);
    lines(&output, 1);
    assert!(stderr(&output).contains("not taken within 1s"), "{}", stderr(&output));
}

#[test]
fn a_permanent_refusal_names_its_line_and_the_rest_is_sent() {
    let server = Scripted::start(|_, asked| receipts(&asked.body, |id| (id == 2).then_some(400)));
    let file = file(&format!("[\n{}]", commands(1..=3).trim_end().replace('\n', ",\n")));
    let output = send(&server.url, &file, &["--no-check"]);
    let printed = lines(&output, 1);
    assert_eq!((printed.len(), &json_of(&printed[1])["line"]), (3, &json!(3)));
    assert_eq!(json_of(&printed[1])["problem"]["detail"], "no");
    assert!(
        stderr(&output).contains("1 of 3 commands were refused; the first: line 3: no"),
        "{}",
        stderr(&output)
    );

    let printed = lines(&send(&server.url, &file, &["--no-check", "--stop-at-error"]), 1);
    assert_eq!(printed.len(), 2);
    assert_eq!(ids(&server), [vec![1, 2, 3], vec![1], vec![2]]);

    // A refusal of the whole request is not counted as a refusal of its commands.
    let gateway =
        Scripted::start(|_, _| Reply::Status(301, "location: https://x\r\n", String::new()));
    let output = send(&gateway.url, &file, &[]);
    lines(&output, 1);
    assert!(stderr(&output).contains("sends to https://x"), "{}", stderr(&output));
}

#[test]
fn a_command_with_a_receipt_that_was_not_done_is_an_error() {
    let up = Up::new();
    // More ids than a log remembers, and then one below them.
    lines(&send(&up.url, &file(&commands(10..=2_200)), &[]), 0);
    let again = file(&(commands([5]) + &commands([2_100, 2_300])));
    for (flags, code) in [(&[][..], 1), (&["--wait"], 1), (&["--no-check"], 0)] {
        let output = send(&up.url, &again, flags);
        let printed = lines(&output, code);
        assert_eq!(printed.len(), 3);
        let said = stderr(&output);
        assert_eq!(
            said.contains("1 of 3 commands have receipts, and were not done; the first: line 1: "),
            code == 1,
            "{said}"
        );
        assert_eq!(said.contains("`stale`"), code == 1, "{said}");
        if flags == ["--wait"] {
            let status = |at: usize| json_of(&printed[at])["status"].clone();
            assert_eq!([status(0), status(1), status(2)], ["stale", "duplicate", "duplicate"]);
        }
    }
}

#[test]
fn ids_are_filled_in_and_shown() {
    let server = Scripted::start(|_, asked| receipts(&asked.body, |_| None));
    let file =
        file("{\"user\":\"ann\",\"data\":18446744073709551616}\n{\"user\":\"ann\",\"id\":7}\n{}\n");
    let printed = lines(&send(&server.url, &file, &["--id", "auto", "--no-check"]), 0);
    let body = server.bodies("POST /commands").remove(0);
    let sent: Vec<&str> = body.lines().collect();
    assert!(sent[0].ends_with(r#""user":"ann","data":18446744073709551616}"#), "{body}");
    assert_eq!(sent[1], r#"{"user":"ann","id":7}"#);
    let (first, third) = (json_of(sent[0]), json_of(sent[2]));
    assert!(first["id"].as_u64() < third["id"].as_u64() && first["id"].as_u64() > Some(1 << 50));
    assert!(first["client"].as_str().is_some_and(|client| client.starts_with("send-")), "{body}");
    assert_eq!(first["client"], third["client"]);
    for (printed, sent) in printed.iter().zip(sent) {
        assert!(printed.ends_with(&format!(",\"sent\":{sent}}}")), "{printed}");
    }

    // A dry run prints the commands and sends nothing.
    let dry = ["--id", "auto", "--client", "job 7", "--dry-run"];
    let printed = lines(&send(&server.url, &file, &dry), 0);
    assert_eq!(printed[1], r#"{"client":"job 7","user":"ann","id":7}"#);
    assert_eq!(json_of(&printed[2])["client"], "job 7");
    assert_eq!(server.bodies("POST").len(), 1, "nothing was sent");

    let one = ["send", "--url", &server.url, "--no-check", "--type", "ledger", "--command", "open"];
    let output = fanfold(&one).args(["--id", "auto", "--user", "ann"]).output().expect("it starts");
    assert!(json_of(&lines(&output, 0)[0])["sent"]["id"].is_u64());
}

#[test]
fn a_server_may_be_behind_a_path_and_no_proxy_is_used_for_this_machine() {
    let server = Scripted::start(|_, asked| receipts(&asked.body, |_| None));
    let address = server.url.trim_start_matches("http://").to_owned();
    let proxy = Scripted::start(|_, _| Reply::Status(403, "", String::new()));
    let run = |url: &str| {
        let mut command = fanfold(&["send", "--no-check", "--url", url, "-"]);
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
            command.env(name, &proxy.url);
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy").stdin(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        child
            .stdin
            .take()
            .expect("it is piped")
            .write_all(commands([1]).as_bytes())
            .expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    lines(&run(&address), 0);
    lines(&run(&format!("{address}/stage/v1/")), 0);
    assert_eq!(server.bodies("POST /commands").len(), 1);
    assert_eq!(server.bodies("POST /stage/v1/commands").len(), 1);
    assert_eq!(proxy.bodies("").len(), 0);
    lines(&run("http://fanfold.invalid"), 1);
    assert_eq!(proxy.bodies("CONNECT fanfold.invalid:80").len(), 1);
}

#[test]
fn an_error_in_a_file_names_file_and_line() {
    let server = Scripted::start(|_, asked| receipts(&asked.body, |_| None));
    for (text, says) in [
        ("\n{\n  \"type\": \"ledger\"\n}\n", "line 2: the command goes on"),
        ("[1,\n2", "not a JSON array"),
    ] {
        let file = file(text);
        let output = send(&server.url, &file, &[]);
        lines(&output, 1);
        let said = stderr(&output);
        assert!(said.contains(&file.path().display().to_string()) && said.contains(says), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn everything_is_sent_even_if_standard_output_is_closed_or_full() {
    let up = Up::new();
    let file = file(&commands(1..=1_100));
    for (stdout, code) in [(None, Some(0)), (Some("/dev/full"), Some(1))] {
        let mut command = fanfold(&["send", "--url", &up.url, "--file"]);
        command.arg(file.path());
        if let Some(path) = stdout {
            command.stdout(File::options().write(true).open(path).expect("it is there"));
            command.stderr(File::options().write(true).open(path).expect("it is there"));
        }
        let mut child = command.spawn().expect("it starts");
        drop(child.stdout.take());
        assert_eq!(child.wait().expect("it ends").code(), code, "{stdout:?}");
    }
    let entries = lines(&up.client(&["log", "ledger/org:acme"]), 0);
    assert_eq!(entries.len(), 2 * 1_100);
}
