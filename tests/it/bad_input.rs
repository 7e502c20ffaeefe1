//! Bad input is answered with a problem that says what is wrong and where, and has no other effect.
//!
//! `acme` and `victim` stand for orgs of this world.

use serde_json::{Value, json};

use crate::answer::check_problem;
use crate::world::World;

/// A request, and the problem in its answer.
#[derive(Clone)]
struct Case {
    name: String,
    method: &'static str,
    path: String,
    body: Vec<u8>,
    status: u16,
    kind: &'static str,
    detail: String,
}

/// Replaces `acme` and `victim` by the names of this world.
fn in_world(world: &World, text: &str) -> String {
    let mut text = text.to_owned();
    for org in ["acme", "victim"] {
        let name = world.name(org);
        text = text.replace(&format!("org:{org}"), &format!("org:{name}"));
        text = text.replace(&format!("\"org\":\"{org}\""), &format!("\"org\":\"{name}\""));
    }
    text
}

impl Case {
    fn in_world(&self, world: &World) -> Self {
        // A body that is not text names no org.
        let body = std::str::from_utf8(&self.body).map(|body| in_world(world, body).into_bytes());
        Self {
            path: in_world(world, &self.path),
            detail: in_world(world, &self.detail),
            body: body.unwrap_or_else(|_| self.body.clone()),
            ..self.clone()
        }
    }
}

fn case(
    (method, path): (&'static str, impl Into<String>),
    body: impl Into<Vec<u8>>,
    (status, kind): (u16, &'static str),
    detail: impl Into<String>,
) -> Case {
    let (path, body, detail) = (path.into(), body.into(), detail.into());
    let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
    let name = format!("{method} {path} {shown}");
    Case { name, method, path, body, status, kind, detail }
}

/// A `POST /command`.
fn command(body: impl Into<Vec<u8>>, problem: (u16, &'static str), detail: &str) -> Case {
    case(("POST", "/command"), body, problem, detail)
}

fn get(path: impl Into<String>, problem: (u16, &'static str), detail: &str) -> Case {
    case(("GET", path), "", problem, detail)
}

/// The standard request, with `field` changed; `null` leaves it out.
fn with(field: &str, value: Value) -> String {
    let mut request = json!({
        "type": "ledger", "command": "deposit", "id": 17, "timestamp": 11178, "user": "ann",
        "org": "victim", "data": {"account": "cash", "amount": 100},
    });
    let fields = request.as_object_mut().expect("it is an object");
    match value {
        Value::Null => fields.remove(field),
        value => fields.insert(field.to_owned(), value),
    };
    request.to_string()
}

/// As [`with`], for values that [`Value`] cannot hold.
fn with_raw(field: &str, value: &str) -> String {
    with(field, json!("RAW")).replace("\"RAW\"", value)
}

fn documents() -> Vec<Case> {
    let deep = |n| "[".repeat(n) + &"]".repeat(n);
    vec![
        command("", (400, "not-json"), "the body is empty"),
        command("nonsense", (400, "not-json"), "line 1 column 2"),
        command(r#"{"type":"ledger""#, (400, "not-json"), "not JSON"),
        command(with("org", json!("x")) + "}", (400, "not-json"), "not JSON"),
        command("[]", (400, "not-an-object"), "must be a JSON object"),
        command("17", (400, "not-an-object"), "must be a JSON object"),
        command("null", (400, "not-an-object"), "must be a JSON object"),
        command(format!("[{}]", with("id", json!(1))), (400, "not-an-object"), "JSON object"),
        command("[".repeat(10_000), (400, "not-json"), "not JSON"),
        command(deep(10_000), (400, "not-an-object"), "must be a JSON object"),
        command(with_raw("data", &"[".repeat(10_000)), (400, "not-json"), "not JSON"),
        command(
            with_raw("data", &format!("{{\"a\":{}}}", deep(10_000))),
            (400, "too-deep"),
            "`data`",
        ),
        command(with_raw("colour", &deep(10_000)), (400, "unknown-field"), "`colour`"),
        command(
            with("user", json!("RAW")).into_bytes().iter().map(|b| b | 0x80).collect::<Vec<_>>(),
            (400, "not-utf8"),
            "from byte 0 on",
        ),
        command(b"{\"type\":\"l\xff\"}".to_vec(), (400, "not-utf8"), "from byte 10 on"),
        command(
            with("data", json!({"account": "x".repeat(65 * 1024)})),
            (413, "command-too-large"),
            "at most 65536",
        ),
        command(vec![b' '; 1024 * 1024 + 1], (413, "body-too-large"), "at most 1048576"),
        command(vec![b'x'; 1024 * 1024], (413, "command-too-large"), "1048576 bytes long"),
    ]
}

fn fields() -> Vec<Case> {
    let mut cases: Vec<Case> = ["type", "command", "id", "user"]
        .iter()
        .map(|f| {
            command(with(f, Value::Null), (400, "missing-field"), &format!("`{f}`: is required"))
        })
        .collect();
    cases.push(command("{}", (400, "missing-field"), "`type`: is required"));
    cases.push(command(
        with("colour", json!(1)),
        (400, "unknown-field"),
        "`colour`: unknown field",
    ));
    cases.push(command(with("Type", json!(1)), (400, "unknown-field"), "`Type`: unknown field"));
    let twice = with("org", json!("x")).replacen('{', r#"{"id":17,"#, 1);
    cases.push(command(twice, (400, "repeated-field"), "`id`: is given twice"));

    for (field, value) in [
        ("type", "1"),
        ("type", "null"),
        ("command", "[]"),
        ("id", "\"17\""),
        ("id", "null"),
        ("id", "true"),
        ("timestamp", "\"now\""),
        ("timestamp", "-1"),
        ("timestamp", "1.5"),
        ("user", "{}"),
        ("org", "5"),
        ("client", "5"),
        ("data", "[]"),
        ("data", "\"x\""),
    ] {
        let detail = format!("`{field}`: must be");
        cases.push(command(with_raw(field, value), (400, "wrong-type"), &detail));
    }
    for id in ["0", "-1", "1.5", "17.0", "9007199254740992", "18446744073709551616", "1e3", "1e400"]
    {
        let detail = "`id`: must be an integer from 1 to 9007199254740991";
        cases.push(command(with_raw("id", id), (400, "bad-id"), detail));
    }

    let long = "x".repeat(129);
    for field in ["command", "user", "client", "org"] {
        for (name, detail) in [
            ("", "must not be empty"),
            (long.as_str(), "is 129 bytes long, at most 128"),
            ("a/b", "contains '/' (U+002F)"),
            ("a?b", "contains '?' (U+003F)"),
            ("a%b", "contains '%' (U+0025)"),
            (" a", "begins or ends with U+0020"),
            ("a ", "begins or ends with U+0020"),
            (".", "must not be `.` or `..`"),
            ("..", "must not be `.` or `..`"),
            ("de\u{301}po\u{302}t", "is not in Unicode normalization form C (NFC)"),
            ("a\u{0}", "contains U+0000"),
            ("a\u{202e}b", "contains U+202E"),
        ] {
            let detail = format!("`{field}`: {detail}");
            cases.push(command(with(field, json!(name)), (400, "bad-name"), &detail));
        }
    }
    for (name, detail) in [
        ("", "must not be empty"),
        ("Ledger", "contains 'L'"),
        ("1st", "contains '1'"),
        ("x".repeat(33).as_str(), "is 33 bytes long, at most 32"),
    ] {
        let detail = format!("`type`: {detail}");
        cases.push(command(with("type", json!(name)), (400, "bad-name"), &detail));
    }
    for user in ["resend", "reactor:", "reactor:payout@ledger"] {
        cases.push(command(
            with("user", json!(user)),
            (400, "reserved-name"),
            "`user`: is reserved",
        ));
    }

    cases.push(command(with("type", json!("lodger")), (404, "unknown-service"), "`lodger`"));
    cases.push(command(
        with("command", json!("rob")),
        (400, "unknown-command"),
        "no command `rob`",
    ));
    for (data, detail) in [
        (json!({}), "`account`"),
        (json!({"account": "cash"}), "`amount`"),
        (json!({"account": "cash", "amount": "100"}), "`data.amount`"),
        (json!({"account": "cash", "amount": 1.5}), "`data.amount`"),
        (json!({"account": "a/b", "amount": 1}), "`data.account`"),
        (json!({"account": "cash", "amount": 1, "currency": "EUR"}), "`currency`"),
    ] {
        cases.push(command(with("data", data), (400, "invalid-data"), detail));
    }
    cases
}

fn batches() -> Vec<Case> {
    let post =
        |body: Vec<u8>, problem, detail: &str| case(("POST", "/commands"), body, problem, detail);
    let array = |n: usize| format!("[{}0]", "0,".repeat(n - 1)).into_bytes();
    vec![
        post(b"{}\n".repeat(501), (413, "too-many-commands"), "501 commands, at most 500"),
        post(array(501), (413, "too-many-commands"), "501 commands, at most 500"),
        post(vec![b'\n'; 1024 * 1024 + 1], (413, "body-too-large"), "at most 1048576"),
        post(b"[{},".to_vec(), (400, "not-json"), "the batch is not JSON"),
        post(b"[{}] {}".to_vec(), (400, "not-json"), "the batch is not JSON"),
        post("[".repeat(10_000).into_bytes(), (400, "not-json"), "the batch is not JSON"),
        post(b"[\"\xff\"]".to_vec(), (400, "not-utf8"), "from byte 2 on"),
        post(b"".to_vec(), (400, "no-commands"), "no commands"),
        post(b"\n \n".to_vec(), (400, "no-commands"), "no commands"),
        post(b"[]".to_vec(), (400, "no-commands"), "no commands"),
    ]
}

fn reads() -> Vec<Case> {
    let mut cases = vec![
        get(
            "/logs/ledger/org:nobody/1",
            (404, "unknown-seq"),
            "`ledger/org:nobody` has no seq 1: no command was accepted for it yet",
        ),
        get("/logs/lodger/org:acme", (404, "unknown-service"), "`lodger`"),
        get("/logs/ledger/org:acme/2", (404, "unknown-seq"), "no seq 2"),
        get("/logs/ledger/org:acme/2?wait=100", (404, "unknown-seq"), "no seq 2"),
        get("/views/lodgers/ledger/org:acme", (404, "unknown-view"), "`lodgers`"),
        get("/views/balances/ledger/org:nobody?seq=1", (404, "unknown-seq"), "`ledger/org:nobody`"),
        get("/views/balances/ledger/org:nobody/cash", (404, "unknown-row"), "`cash`"),
        get("/views/balances/ledger/org:acme?seq=2", (404, "unknown-seq"), "no seq 2"),
        get("/views/balances/ledger/org:acme/none?seq=1&wait=5000", (404, "unknown-row"), "`none`"),
        get("/", (404, "unknown-route"), "`/`"),
        get("/logs/ledger", (404, "unknown-route"), "`/logs/ledger`"),
        get("/logs//org:acme", (400, "bad-name"), "`service`: must not be empty"),
        get("/logs/Ledger/org:acme", (400, "bad-name"), "`service`: contains 'L'"),
        get("/logs/ledger/acme", (400, "bad-name"), "`partition`: must begin with"),
        get("/logs/ledger/org:", (400, "bad-name"), "`partition`: must not be empty"),
        get("/logs/ledger/org%2Facme", (400, "bad-name"), "`partition`: must begin with"),
        get("/logs/ledger/org:a%20", (400, "bad-name"), "`partition`: begins or ends with U+0020"),
        get("/logs/ledger/org:%2E%2E", (400, "bad-name"), "`partition`: must not be `.` or `..`"),
        get("/logs/ledger/org:e%CC%81", (400, "bad-name"), "`partition`: is not in Unicode"),
        get("/logs/ledger/org:acme/first", (400, "bad-parameter"), "`seq`: must be an integer"),
        get("/logs/ledger/org:acme/0", (400, "bad-parameter"), "`seq`"),
        get("/logs/ledger/org:acme/-1", (400, "bad-parameter"), "`seq`"),
        get("/logs/ledger/org:acme/99999999999999999999", (400, "bad-parameter"), "`seq`"),
        get(
            "/views/balances/ledger/org:acme/a%20",
            (400, "bad-name"),
            "`row`: begins or ends with",
        ),
        get("/views/balances/ledger/org:acme?order=up", (400, "bad-parameter"), "`order`"),
        get("/views/balances/ledger/org:acme?prefix=a%23b", (400, "bad-parameter"), "`prefix`"),
        get("/views/balances/ledger/org:acme?after=%FF", (400, "bad-parameter"), "`after`"),
        get("/views/balances/ledger/org:acme?from=1", (400, "unknown-parameter"), "`from`"),
        get("/views/balances/ledger/org:acme/x?limit=1", (400, "unknown-parameter"), "`limit`"),
        get("/logs/ledger/org:acme?seq=1", (400, "unknown-parameter"), "`seq`"),
        get("/logs/ledger/org:acme?limit=1&limit=1", (400, "repeated-parameter"), "`limit`"),
        case(
            ("POST", "/commands?wait=1"),
            with("id", json!(1)),
            (400, "unknown-parameter"),
            "`wait`",
        ),
        case(
            ("POST", "/command?wait=soon"),
            with("id", json!(1)),
            (400, "bad-parameter"),
            "`wait`",
        ),
        case(("POST", "/commands?x"), "{}", (400, "unknown-parameter"), "`x`"),
    ];
    let long = get(
        format!("/logs/ledger/org:{}", "x".repeat(129)),
        (400, "bad-name"),
        "`partition`: is 129 bytes long, at most 128",
    );
    cases.push(long);
    let rows = "/views/balances/ledger/org:acme";
    for (path, param, values) in [
        ("/logs/ledger/org:acme/1", "wait", &["25001", "-1", "forever", "", "1e3", "%2B1"][..]),
        (rows, "wait", &["25001", "99999999999999999999", "-1"]),
        ("/views/balances/ledger/org:acme/cash", "wait", &["25001"]),
        ("/logs/ledger/org:acme", "limit", &["0", "1001", "-1", "99999999999999999999", "ten"]),
        (rows, "limit", &["0", "1001", "all"]),
        (
            "/logs/ledger/org:acme",
            "from",
            &["0", "-1", "140737488355328", "99999999999999999999", "a"],
        ),
        (rows, "seq", &["0", "-1", "last", "140737488355328"]),
    ] {
        for value in values {
            let path = format!("{path}?{param}={value}");
            let detail = format!("`{param}`: must be an integer from");
            cases.push(get(path, (400, "bad-parameter"), &detail));
        }
    }
    cases
}

/// Requests that a gateway changes or refuses itself: paths that it decodes, and bodies that are
/// too long for a Lambda. Also requests for views of the second service, which is not deployed.
fn without_gateway() -> Vec<Case> {
    vec![
        get("/views/tally/ledger/org:acme", (404, "unknown-view"), "does not read"),
        get("/views/narrow/counter/org:acme?seq=1", (400, "filtered-view"), "`seq`"),
        get("/logs/ledger/org:%FF", (400, "not-utf8"), "`partition`"),
        get("/command/", (404, "unknown-route"), "`/command/`"),
        command(vec![b' '; 5 * 1024 * 1024], (413, "body-too-large"), "at most 1048576"),
        not_allowed("BREW", "/views/balances/ledger/org:acme/cash"),
        // The Lambda does not serve it.
        not_allowed("POST", "/metrics"),
    ]
}

fn not_allowed(method: &'static str, path: &str) -> Case {
    case((method, path), "", (405, "method-not-allowed"), format!("`{path}` does not take"))
}

/// Wrong methods, each with the methods that are allowed.
fn methods() -> Vec<(Case, &'static str)> {
    vec![
        (not_allowed("GET", "/command"), "POST"),
        (not_allowed("PUT", "/command"), "POST"),
        (not_allowed("DELETE", "/commands"), "POST"),
        (not_allowed("POST", "/logs/ledger/org:acme"), "GET,HEAD"),
        (not_allowed("DELETE", "/logs/ledger/org:acme/1"), "GET,HEAD"),
        (not_allowed("PATCH", "/views/balances/ledger/org:acme"), "GET,HEAD"),
        (not_allowed("POST", "/healthz"), "GET,HEAD"),
        (not_allowed("POST", "/readyz"), "GET,HEAD"),
    ]
}

/// Sends the cases, each with the header `allow` that its answer must have.
#[track_caller]
fn check<'a>(world: &World, cases: impl IntoIterator<Item = (&'a Case, &'a str)>) {
    let mut failures = Vec::new();
    for (case, allow) in cases {
        let case = case.in_world(world);
        let answer = world.call(case.method, &case.path, &case.body);
        let is =
            answer.check_problem(case.status, case.kind, &case.detail).and_then(|()| match answer
                .header("allow")
            {
                header if header == allow => Ok(()),
                header => Err(format!("allow: {header}")),
            });
        if let Err(instead) = is {
            failures.push(format!(
                "{}\n  expected {} {} {}\n  got {instead}",
                case.name, case.status, case.kind, case.detail
            ));
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn bad_input_is_answered_with_its_problem() {
    let world = World::new();
    let (acme, victim) = (world.name("acme"), world.name("victim"));
    world.send("ledger", "open", 1, &acme, json!({"account": "cash"})).expect(202);

    let cases = [documents(), fields(), batches(), reads()].concat();
    check(&world, cases.iter().map(|case| (case, "")));
    check(&world, methods().iter().map(|(case, allow)| (case, *allow)));

    // None of them was accepted, and the host still works.
    let log = world.get(&format!("/logs/ledger/org:{victim}")).expect(200);
    assert_eq!(log.json["accepted"], 0);
    let log = world.get(&format!("/logs/ledger/org:{acme}")).expect(200);
    assert_eq!(log.json["accepted"], 1);
    let good = in_world(&world, &with("id", json!(1)));
    let answer = world.post("/command", good.as_bytes()).expect(202);
    assert_eq!(answer.json, json!({"log": format!("ledger/org:{victim}"), "seq": 1}));
}

#[test]
fn bad_input_is_answered_with_its_problem_without_a_gateway() {
    let world = World::local();
    let acme = world.name("acme");
    world.send("ledger", "open", 1, &acme, json!({"account": "cash"})).expect(202);
    world.send("counter", "add", 1, &acme, json!({"n": 1})).expect(202);
    let allow = |case: &Case| if case.status == 405 { "GET,HEAD" } else { "" };
    check(&world, without_gateway().iter().map(|case| (case, allow(case))));
}

#[test]
fn a_batch_has_problems_for_its_bad_commands_and_receipts_for_the_others() {
    let world = World::new();
    let victim = format!("ledger/org:{}", world.name("victim"));
    let deep = format!("{{\"type\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let too_large = with("data", json!({"account": "x".repeat(65 * 1024)}));
    let bad: Vec<(Vec<u8>, u16, &str, &str)> = vec![
        (b"{\"type\":".to_vec(), 400, "not-json", "not JSON"),
        (b"\"\xff\"".to_vec(), 400, "not-utf8", "from byte 1 on"),
        (deep.into_bytes(), 400, "wrong-type", "`type`"),
        (b"17".to_vec(), 400, "not-an-object", "object"),
        (with("id", json!(0)).into_bytes(), 400, "bad-id", "`id`"),
        (with("type", json!("lodger")).into_bytes(), 404, "unknown-service", "`lodger`"),
        (too_large.into_bytes(), 413, "command-too-large", "65536"),
    ];
    let mut lines = Vec::new();
    for (id, (line, ..)) in (1..).zip(&bad) {
        lines.extend_from_slice(in_world(&world, &with("id", json!(id))).as_bytes());
        lines.push(b'\n');
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }
    let answers = world.post("/commands", &lines).expect(202).json;
    let results = answers["results"].as_array().expect("an array");
    assert_eq!(results.len(), 2 * bad.len());
    for (at, ((_, status, kind, detail), pair)) in bad.iter().zip(results.chunks(2)).enumerate() {
        assert_eq!(pair[0], json!({"log": victim, "seq": at + 1}));
        check_problem(&pair[1]["problem"], *status, kind, detail).expect(kind);
    }
}

#[test]
fn requests_just_within_the_limits_are_accepted() {
    let world = World::new();
    let victim = world.name("victim");
    let name = format!("{:x<128}", world.name("x"));
    let with = |field, value| in_world(&world, &with(field, value));
    let mut padded = with("id", json!(9_007_199_254_740_991_u64));
    padded.push_str(&" ".repeat(64 * 1024 - padded.len()));
    for request in [with("user", json!(name)), with("org", json!(name)), padded] {
        world.post("/command", request.as_bytes()).expect(202);
    }
    let mut batch = with("id", json!(2)) + "\n";
    batch.push_str(&"\n".repeat(1024 * 1024 - batch.len()));
    world.post("/commands", batch.as_bytes()).expect(202);
    let many: String = (1..=500).map(|id| with("id", json!(id)) + "\n").collect();
    let answers = world.post("/commands", many.as_bytes()).expect(202).json;
    assert_eq!(answers["results"].as_array().map(Vec::len), Some(500));
    world.get(&format!("/logs/ledger/org:{victim}?limit=1000&from=140737488355327")).expect(200);
    world.reach(&format!("/logs/ledger/org:{victim}/1"));
}
