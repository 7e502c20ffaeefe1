//! A workload file draws the same commands for the same seed, and every mistake in one is named.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::file::WorkloadFile;
use super::tests::spec;
use super::*;
use auditor::receipts::Expect;

const SEATS: &str = r#"
service: seats
partition: org
views: [holders, counts]
setup:
  - command: add-room
    each: 5
    data: { room: "room-{{ n }}", seats: "{{ int(2, 20) }}" }
  - command: rename
    data: { room: "{{ earlier('add-room', 'room') }}", by: "{{ run }}" }
    expect: either
mix:
  - weight: 8
    command: book
    data:
      room: "{{ earlier('add-room', 'room') }}"
      seats: "{{ earlier('add-room', 'seats') }}"
      on: "{{ date('2026-01-30', '2026-02-02') }}"
      guest: { name: "{{ name() }}", vip: false, note: "{% if n % 2 %}odd{% else %}even{% endif %} {{ n }}" }
      price: "{{ number(1, 5, 1) }}"
      tags: [fixed, "{{ choice(['a', 2, none]) }}"]
      key: "{{ tenant }}-{{ n }}"
    expect: either
  - weight: 2
    command: cancel
    data: { key: "{{ earlier('book', 'key') }}", guest: "{{ earlier('book', 'guest.name') }}", memo: "{{ text(12) }}" }
    expect: { rejected: [gone, late] }
  - command: close
    expect: { rejected: open }
"#;

fn compile(text: &str) -> Result<Arc<Program>, WorkloadError> {
    Program::compile(Path::new("w.yaml"), text)
}

fn seats(seed: u64) -> Spec {
    let program = compile(SEATS).expect("it is good");
    Spec { program: Some(program), seed, tenants: 4, threads: 2, ..spec() }
}

/// The requests of one thread, with the bodies that are sent.
fn requests(spec: &Spec, thread: u16, count: usize) -> Vec<String> {
    let mut workload = Workload::new(spec.clone(), thread);
    let mut requests = Vec::new();
    for _ in 0..count {
        for command in workload.next_request(1, false).expect("it is rendered") {
            let mut body = Vec::new();
            command.write_request(spec, &mut body);
            requests.push(String::from_utf8(body).expect("it is text"));
        }
    }
    requests
}

#[test]
fn the_same_seed_renders_the_same_commands() {
    let mixed = |seed| Spec { duplicates: 0.1, out_of_order: 0.1, reused: 0.1, ..seats(seed) };
    assert_eq!(requests(&mixed(7), 0, 2_000), requests(&mixed(7), 0, 2_000));
    assert_ne!(requests(&mixed(7), 0, 2_000), requests(&mixed(8), 0, 2_000));
    assert_ne!(requests(&mixed(7), 0, 2_000), requests(&mixed(7), 1, 2_000));
    let of_tenant = |spec: &Spec, tenant: &str| -> Vec<Value> {
        let all = requests(spec, 0, 2_000);
        let all = all.iter().map(|body| serde_json::from_str(body).expect("it is JSON"));
        all.filter(|request: &Value| request["org"] == tenant)
            .map(|request: Value| request["data"].clone())
            .take(100)
            .collect()
    };
    // What other tenants are drawn does not change a tenant's commands.
    let (few, many) = (seats(7), Spec { tenants: 40, zipf: 0.0, ..seats(7) });
    assert_eq!(of_tenant(&few, "load-2")[..20], of_tenant(&many, "load-2")[..20]);
}

#[test]
fn data_have_the_types_and_bounds_of_their_templates() {
    let spec = seats(3);
    let setup = Openings::new(&spec).of(1..2).expect("it is rendered");
    assert_eq!(setup.len(), 6);
    let mut seats = BTreeMap::new();
    for (n, command) in setup.iter().enumerate() {
        let mut body = Vec::new();
        command.write_request(&spec, &mut body);
        let request: Value = serde_json::from_slice(&body).expect("it is JSON");
        assert_eq!(request["id"], n + 1);
        let room = request["data"]["room"].as_str().expect("a text").to_owned();
        match request["command"].as_str() {
            Some("add-room") => {
                assert_eq!(room, format!("room-{n}"));
                seats.insert(room, request["data"]["seats"].as_i64().expect("an integer"));
            }
            _ => assert!(seats.contains_key(&room) && request["data"]["by"] == "r7-"),
        }
    }
    assert!(seats.values().all(|seats| (2..=20).contains(seats)), "{seats:?}");
    let (mut by_name, mut keys) = (HashMap::new(), HashMap::new());
    for body in requests(&spec, 0, 4_000).iter().chain(&requests(&spec, 1, 1_000)) {
        let request: Value = serde_json::from_str(body).expect("it is JSON");
        let (org, data) = (request["org"].as_str().expect("a text").to_owned(), &request["data"]);
        *by_name.entry(request["command"].as_str().expect("a text").to_owned()).or_insert(0) += 1;
        match request["command"].as_str() {
            Some("book") => {
                let on = data["on"].as_str().expect("a text");
                assert!(("2026-01-30"..="2026-02-02").contains(&on), "{on}");
                let price = data["price"].as_f64().expect("a number");
                assert!((1.0..=5.0).contains(&price) && (price * 10.0).fract().abs() < 1e-9);
                assert_eq!(
                    (&data["guest"]["vip"], &data["tags"][0]),
                    (&false.into(), &"fixed".into())
                );
                assert!(["a".into(), 2.into(), Value::Null].contains(&data["tags"][1]), "{body}");
                let note = data["guest"]["note"].as_str().expect("a text");
                let n: u64 = note.split(' ').nth(1).expect("n").parse().expect("a number");
                assert!(note.starts_with(["even", "odd"][n as usize % 2]), "{note}");
                let key = data["key"].as_str().expect("a text").to_owned();
                let is_new =
                    keys.insert((org.clone(), key), data["guest"]["name"].clone()).is_none();
                assert!(is_new, "`n` is unique in a tenant: {body}");
                if org == "load-1" {
                    let room = data["room"].as_str().expect("a text");
                    // All fields are of the same earlier command.
                    assert_eq!(data["seats"], seats[room], "{body}");
                }
            }
            Some("cancel") => {
                let key = data["key"].as_str().expect("a text").to_owned();
                assert_eq!(
                    keys.get(&(org, key)),
                    Some(&data["guest"]),
                    "it was sent before: {body}"
                );
                assert_eq!(data["memo"].as_str().map(str::len), Some(12));
            }
            _ => assert_eq!(data, &serde_json::json!({})),
        }
    }
    let share = |name: &str| f64::from(by_name[name]) / 5_000.0;
    assert!((0.70..0.76).contains(&share("book")), "8 of 11: {by_name:?}");
    assert!((0.15..0.21).contains(&share("cancel")), "2 of 11: {by_name:?}");
}

/// The data of the first commands of one tenant.
fn data_of_one_tenant(text: &str, count: usize) -> Vec<Value> {
    let program = Some(compile(text).expect("it is good"));
    let spec = Spec { program, tenants: 1, ..spec() };
    let bodies = requests(&spec, 0, count);
    let data = |body: &String| {
        let mut request: Value = serde_json::from_str(body).expect("it is JSON");
        request["data"].take()
    };
    bodies.iter().map(data).collect()
}

#[test]
fn earlier_commands_of_two_numbers_differ_where_they_can() {
    let workload = |each: u32| {
        format!(
            "service: a\nsetup: [{{ command: open, each: {each}, data: {{ name: 'a{{{{ n % 2 }}}}', n: '{{{{ n }}}}' }} }}]\n\
             mix:\n  - command: move\n    data:\n      from: \"{{{{ earlier('open', 'name') }}}}\"\n      \
             n: \"{{{{ earlier('open', 'n') }}}}\"\n      to: \"{{{{ earlier('open', 'name', 2) }}}}\"\n      \
             m: \"{{{{ earlier('open', 'n', 2) }}}}\"\n"
        )
    };
    let moves = data_of_one_tenant(&workload(6), 200);
    for of in &moves {
        assert_ne!(of["from"], of["to"], "{of}");
        // All fields of a number are of one command.
        for (name, n) in [("from", "n"), ("to", "m")] {
            let n = of[n].as_u64().expect("a number");
            assert_eq!(of[name], format!("a{}", n % 2), "{of}");
        }
    }
    let all: HashSet<String> = moves.iter().map(Value::to_string).collect();
    assert!(all.len() > 10, "{all:?}");
    // There is no other one.
    for of in data_of_one_tenant(&workload(1), 10) {
        assert_eq!(of["from"], of["to"]);
    }
}

#[test]
fn a_numbered_date_is_the_same_day_in_all_fields() {
    let days = data_of_one_tenant(
        "service: a\nmix: [{ command: go, data: { n: '{{ n }}', from: \"{{ date('2030-02-27', '2030-03-01', n) }}\", \
         to: \"{{ date('2030-02-27', '2030-03-01', n) }}\" } }]",
        4,
    );
    let days: Vec<&str> = days
        .iter()
        .filter_map(|of| of["from"].as_str().filter(|_| of["from"] == of["to"]))
        .collect();
    assert_eq!(days, ["2030-02-27", "2030-02-28", "2030-03-01", "2030-02-27"]);
}

#[test]
fn receipts_name_the_command_its_digest_and_the_expectation() {
    let spec = Spec { reused: 0.2, ..seats(5) };
    let mut workload = Workload::new(spec.clone(), 0);
    let (mut first, mut again) = (HashMap::new(), 0);
    for _ in 0..500 {
        let command = &workload.next_request(1, false).expect("it is rendered")[0];
        let mut body = Vec::new();
        command.write_request(&spec, &mut body);
        let request: Value = serde_json::from_slice(&body).expect("it is JSON");
        let sent = command.sent(&spec);
        assert_eq!(sent.log, format!("seats/org:{}", request["org"].as_str().expect("a text")));
        assert!(
            command.is_of_log(&spec, &sent.log) && !command.is_of_log(&spec, "ledger/org:load-1")
        );
        let Command::Named { name, data, expect } = sent.command else { panic!("it has data") };
        assert_eq!(request["command"], name);
        assert_eq!(data, Digest::of_json(&request["data"].to_string()).expect("it is JSON"));
        assert_eq!(
            expect,
            match &*name {
                "book" => Expect::Either,
                "cancel" => Expect::Rejected(vec!["gone".into(), "late".into()]),
                _ => Expect::Rejected(vec!["open".into()]),
            }
        );
        let first = first.entry((sent.log, sent.user, sent.id)).or_insert((name.clone(), data));
        again += usize::from(*first != (name, data));
    }
    assert!((60..140).contains(&again), "ids with another command: {again}");
}

#[test]
fn a_tenant_can_be_a_user_with_clients() {
    let text = "service: notes\npartition: user\nmix: [{ command: add, data: { n: '{{ n }}' } }]";
    let program = Some(compile(text).expect("it is good"));
    let spec = Spec { program, tenants: 3, users: 2, threads: 2, ..spec() };
    let (mut users, mut clients) = (HashSet::new(), HashSet::new());
    for thread in 0..2 {
        let mut workload = Workload::new(spec.clone(), thread);
        for command in workload.next_request(50, false).expect("it is rendered") {
            let (mut body, sent) = (Vec::new(), command.sent(&spec));
            command.write_request(&spec, &mut body);
            let request: Value = serde_json::from_slice(&body).expect("it is JSON");
            assert_eq!(request.get("org"), None);
            assert_eq!(sent.log, format!("notes/user:{}", sent.user));
            assert!(command.is_of_log(&spec, &sent.log));
            assert_eq!(
                (&request["user"], request["client"].as_str()),
                (&sent.user.clone().into(), sent.client.as_deref())
            );
            users.insert(sent.user);
            clients.insert(sent.client.expect("it has one"));
        }
    }
    let sorted = |of: HashSet<String>| of.into_iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(sorted(users), ["r7-0", "r7-1", "r7-2"].map(String::from).into());
    assert_eq!(sorted(clients), ["w0.0", "w0.1", "w1.0", "w1.1"].map(String::from).into());
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let mix = |step: &str| format!("service: a\nmix:\n  - command: go\n  - {step}\n");
    let deep = "[".repeat(200) + &"]".repeat(200);
    for (text, says) in [
        ("service: a".to_owned(), vec!["w.yaml", "missing field", "mix"]),
        ("service: a\nmix: []".to_owned(), vec!["`mix` is empty"]),
        ("service: a/b\nmix: [{ command: go }]".to_owned(), vec!["the service `a/b`"]),
        ("service: a\nviews: [b, b]\nmix: [{ command: go }]".to_owned(), vec!["line 2", "`b` is there twice"]),
        ("service: a\nviews: ['b c']\nmix: [{ command: go }]".to_owned(), vec!["line 2", "view `b c`"]),
        ("service: a\npartition: world\nmix: [{ command: go }]".to_owned(), vec!["line 2", "world"]),
        (mix("{ command: go, wieght: 2 }"), vec!["line 4", "wieght", "weight"]),
        (mix("{ command: go, weight: 0 }"), vec!["line 4", "`weight` of `go` is 0", "above zero"]),
        (mix("{ command: go, weight: -1 }"), vec!["line 4", "`weight` of `go` is -1"]),
        (mix("{ command: go, weight: .nan }"), vec!["line 4", "`weight` of `go` is NaN"]),
        (mix("{ command: '' }"), vec!["line 4", "the command `` must have"]),
        (mix("{ command: go, data: [1] }"), vec!["line 4", "`data` of `go` is no object"]),
        (mix("{ command: go, data: text }"), vec!["line 4", "`data` of `go` is no object"]),
        (mix("{ command: go, data: '{{ n }}' }"), vec!["line 4", "rendered as 0, which is no object"]),
        (mix("{ command: go, data: { a: .inf } }"), vec!["line 4", "non-finite float `.inf`"]),
        (mix("{ command: go, expect: { rejected: [] } }"), vec!["line 4", "`expect` of `go` has no code"]),
        (mix("{ command: go, expect: refused }"), vec!["line 4", "refused", "accepted"]),
        (
            mix("command: book\n    data:\n      a: 1\n      b: [ok, \"{{ wat(1) }}\"]"),
            vec!["w.yaml, line 7", "the command `book`, field `data.b.1`", "no `wat`", "functions int"],
        ),
        (mix("{ command: go, data: { a: '{{ room }}' } }"), vec!["field `data.a`", "no `room`", "variables n, tenant, run"]),
        (mix("{ command: go, data: { a: '{{ 1 + }}' } }"), vec!["field `data.a`", "unexpected"]),
        (mix("{ command: go, data: { a: 'x {{ n' } }"), vec!["field `data.a`", "unexpected"]),
        (mix("{ command: go, data: { a: '{{ n|shout }}' } }"), vec!["field `data.a`", "shout"]),
        (mix("{ command: go, data: { a: '{{ int(2) }}' } }"), vec!["field `data.a`", "missing argument"]),
        (mix("{ command: go, data: { a: '{{ int(2, 1) }}' } }"), vec!["int(2, 1)", "must not exceed"]),
        (mix("{ command: go, data: { a: '{{ number(2, 1) }}' } }"), vec!["number(2, 1, 2)"]),
        (mix("{ command: go, data: { a: '{{ choice([]) }}' } }"), vec!["a list that is not empty"]),
        (mix("{ command: go, data: { a: \"{{ date('2026-13-01', '2026-01-01') }}\" } }"), vec!["`2026-13-01` is not a date"]),
        (mix("{ command: go, data: { a: \"{{ date('2026-02-01', '2026-01-01') }}\" } }"), vec!["must not be the later"]),
        (mix("{ command: go, data: { a: '{{ text(70000) }}' } }"), vec!["text(70000)", "65536"]),
        (mix("{ command: go, data: { a: '{{ text(40000) }}', b: '{{ text(40000) }}' } }"), vec!["bytes, and a command has at most 65536: shorten"]),
        (mix("{ command: go, data: { a: \"{{ earlier(n, 'x') }}\" } }"), vec!["field `data.a`", "both in quotes"]),
        (mix("{ command: end, data: { a: \"{{ earlier('begin', 'x') }}\" } }"), vec!["line 4", "no command `begin` with `x` is in the setup or the mix"]),
        (mix("{ command: end, data: { a: \"{{ earlier('go', 'x') }}\" } }"), vec!["no command `go` with `x` is"]),
        (
            "service: a\nsetup:\n  - { command: s, data: { a: \"{{ earlier('s', 'a') }}\" } }\nmix: [{ command: go }]".to_owned(),
            vec!["line 3", "`s` uses earlier('s', …)", "before it in the setup"],
        ),
        (
            "service: a\nmix: [{ command: go, data: { a: \"{{ earlier('go', 'a') }}\" } }]".to_owned(),
            vec!["line 2", "no command `go` with `a` is in the setup, or in the mix"],
        ),
        ("service: a\nsetup: [{ command: s, each: 0 }]\nmix: [{ command: go }]".to_owned(), vec!["`each` of `s` is 0"]),
        ("service: a\nsetup: [{ command: s, each: 10001 }]\nmix: [{ command: go }]".to_owned(), vec!["at most 10000"]),
        (mix("{ command: go, data: { a: '{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}' } }"), vec!["field `data.a`", "fuel"]),
        (mix(&format!("{{ command: go, data: {{ a: {deep} }} }}")), vec!["w.yaml"]),
        ("service: [a".to_owned(), vec!["w.yaml", "line 1"]),
    ] {
        let error = match compile(&text) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was accepted: {text}"),
        };
        for part in says {
            assert!(error.contains(part), "`{part}` is not in `{error}`, for: {text}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_workload_can_be_written_and_read_again() {
    let file: WorkloadFile = serde_saphyr::from_str(SEATS).expect("it is YAML");
    let text = serde_saphyr::to_string(&file).expect("it can be written");
    let again: WorkloadFile = serde_saphyr::from_str(&text).expect(&text);
    let json = |file: &WorkloadFile| serde_json::to_value(file).expect("it is JSON");
    assert_eq!(json(&file), json(&again), "{text}");
    assert_eq!(again.mix[1].value.expect, file.mix[1].value.expect);
    let program = Some(compile(&text).expect(&text));
    let spec = Spec { program, ..seats(9) };
    assert_eq!(requests(&spec, 0, 200), requests(&seats(9), 0, 200));
}

/// The example of the README, and the generated project's file, are of the same service.
#[test]
fn the_example_of_a_service_is_the_file_of_the_generated_project() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(here.join(path)).expect(path);
    let example = read("workloads/booking.yaml");
    assert_eq!(example, read("../crates/fanfold-cli/template/loadtest.yaml"));
    let readme = read("README.md");
    let shown = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let names = |text: &str| -> BTreeSet<String> {
        let program = compile(text).unwrap_or_else(|error| panic!("{error}"));
        let steps = program.setup.iter().chain(&program.mix);
        steps.map(|step| step.command.to_string()).chain([program.service.clone()]).collect()
    };
    assert_eq!(names(shown.expect("an example")), names(&example));
}

/// The examples are those that the README points to.
#[test]
fn the_examples_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    let files = std::fs::read_dir(folder).expect("they are there");
    let files: Vec<_> = files.map(|file| file.expect("it is there").path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        Program::read(&file).unwrap_or_else(|error| panic!("{error}"));
    }
}
