//! The commands have the shares, ids and names that the options ask for.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::ledger::TOO_MUCH;
use super::*;

pub(crate) fn spec() -> Spec {
    Spec {
        program: None,
        threads: 1,
        tenants: 100,
        org_prefix: "load-".into(),
        zipf: 1.0,
        users: 3,
        clients: 0,
        user_prefix: "r7-".into(),
        payload: 0,
        duplicates: 0.0,
        reused: 0.0,
        out_of_order: 0.0,
        rejected: 0.0,
        transfers: 0.0,
        seed: 7,
    }
}

fn commands(spec: Spec, n: usize) -> Vec<ClientCommand> {
    let mut workload = Workload::new(spec, 0);
    let mut commands = Vec::new();
    for _ in 0..n {
        commands.extend(workload.next_request(1, false).expect("it is rendered"));
    }
    commands
}

fn share(of: usize, all: usize) -> f64 {
    of as f64 / all as f64
}

#[test]
fn the_same_seed_gives_the_same_commands() {
    let mixed = || Spec { duplicates: 0.1, out_of_order: 0.1, rejected: 0.1, ..spec() };
    assert_eq!(commands(mixed(), 5_000), commands(mixed(), 5_000));
    assert_ne!(commands(mixed(), 5_000), commands(Spec { seed: 8, ..mixed() }, 5_000));
}

#[test]
fn users_number_their_commands_from_one_on() {
    let mut last = HashMap::new();
    for command in commands(spec(), 10_000) {
        let sent = command.sent(&spec());
        let id = last.entry((sent.log, sent.user)).or_insert(0);
        *id += 1;
        assert_eq!(sent.id, *id);
    }
}

#[test]
fn each_client_numbers_its_own_commands_by_the_clock() {
    let spec = Spec { clients: 4, ..spec() };
    let (before, mut last) = (now_ms() * IDS_PER_MS - 1, HashMap::new());
    let all = commands(spec.clone(), 5_000);
    let after = (now_ms() + 5_000) * IDS_PER_MS;
    for command in all {
        let sent = command.sent(&spec);
        let client = sent.client.expect("each is of a client");
        let last = last.entry((sent.log, sent.user, client)).or_insert(before);
        assert!((*last..after).contains(&sent.id) && *last < sent.id, "{}", sent.id);
        *last = sent.id;
    }
    assert!(last.len() > 400, "100 organisations, 3 users, 4 clients: {}", last.len());
}

#[test]
fn ids_are_used_again_for_other_commands() {
    let spec = Spec { reused: 0.1, ..spec() };
    let mut first = HashMap::new();
    let all = commands(spec, 20_000);
    let again = all.iter().filter(|command| {
        let first = first.entry((command.origin(), command.id)).or_insert(command.content.clone());
        *first != command.content
    });
    let again = share(again.count(), all.len());
    assert!((0.09..0.11).contains(&again), "{again}");
}

#[test]
fn tenants_have_the_shares_of_zipfs_law() {
    let count = |zipf| {
        let mut per_tenant = [0; 100];
        commands(Spec { zipf, ..spec() }, 50_000)
            .iter()
            .for_each(|command| per_tenant[command.origin.tenant as usize] += 1);
        per_tenant.map(|n| share(n, 50_000))
    };
    let (alike, zipf) = (count(0.0), count(1.0));
    assert!(alike.iter().all(|share| (0.008..0.012).contains(share)), "{alike:?}");
    // 1/H(100) = 0.193, and the tenth a tenth of that.
    assert!((0.18..0.205).contains(&zipf[0]) && (0.016..0.023).contains(&zipf[9]), "{zipf:?}");
}

#[test]
fn commands_have_the_shares_of_the_options() {
    let mixed =
        Spec { duplicates: 0.1, out_of_order: 0.05, rejected: 0.2, transfers: 0.5, ..spec() };
    let all = commands(mixed, 50_000);
    let (mut seen, mut highest) = (HashSet::new(), HashMap::new());
    let (mut again, mut late) = (0, 0);
    for command in &all {
        let sent = command.sent(&spec());
        if !seen.insert((sent.log.clone(), sent.user.clone(), sent.id)) {
            again += 1;
            continue;
        }
        let highest = highest.entry((sent.log, sent.user)).or_insert(0);
        late += usize::from(sent.id < *highest);
        *highest = sent.id.max(*highest);
    }
    let of =
        |is: fn(&Content) -> bool| share(all.iter().filter(|o| is(&o.content)).count(), all.len());
    let rejected = of(|action| matches!(action, Content::Ledger(Action::Withdraw(_, TOO_MUCH))));
    let transfers = of(|action| matches!(action, Content::Ledger(Action::Transfer(..))));
    let (again, late) = (share(again, all.len()), share(late, all.len()));
    assert!((0.09..0.11).contains(&again), "sent again: {again}");
    assert!((0.04..0.055).contains(&late), "out of order: {late}");
    assert!((0.19..0.21).contains(&rejected), "rejected: {rejected}");
    assert!((0.38..0.42).contains(&transfers), "half of the others: {transfers}");
}

#[test]
fn a_request_equals_the_command_in_its_receipt() {
    for payload in [0, 150, 1_000, 60_000] {
        let clients = u32::from(payload > 150);
        let spec = Spec { payload, clients, rejected: 0.1, transfers: 0.3, ..spec() };
        let openings = Openings::new(&spec).of(0..2).expect("they are the ledger's");
        for command in commands(spec.clone(), 200).iter().chain(&openings) {
            let mut body = Vec::new();
            command.write_request(&spec, &mut body);
            let request: Value = serde_json::from_slice(&body).expect("it is JSON");
            let sent = command.sent(&spec);
            assert_eq!(format!("ledger/org:{}", request["org"].as_str().expect("org")), sent.log);
            assert_eq!((&request["user"], &request["id"]), (&sent.user.into(), &sent.id.into()));
            assert_eq!(request["client"].as_str(), sent.client.as_deref());
            let mut data = request["data"].clone();
            let memo = data.as_object_mut().expect("data").remove("memo");
            let command = serde_json::to_value(&sent.command).expect("a command is JSON");
            assert_eq!(data, command[request["command"].as_str().expect("command")]);
            let digest = memo.as_ref().map(|memo| Digest::of(memo.as_str().expect("a text")));
            assert_eq!(digest, sent.memo);
            if memo.is_some() {
                assert_eq!(body.len(), payload);
            }
        }
    }
}

#[test]
fn each_command_has_a_memo_of_its_own_that_does_not_compress() {
    let spec = Spec { payload: 2_000, ..spec() };
    let memos: HashSet<Digest> =
        commands(spec.clone(), 500).iter().filter_map(|command| command.sent(&spec).memo).collect();
    assert_eq!(memos.len(), 500, "all are different");
    let long = names::letters(7, 64_000);
    // Of each pair of letters there are about as many: 64,000 / 4,096 = 16, Poisson.
    let mut pairs = HashMap::new();
    long.as_bytes().windows(2).for_each(|pair| *pairs.entry(pair).or_insert(0) += 1);
    assert!(pairs.len() > 4_000 && pairs.values().all(|n| *n < 50), "{}", pairs.len());
    assert_eq!(names::letters(7, 64_000), long);
}

#[test]
fn a_request_of_one_tenant_is_of_one_tenant() {
    let mut workload = Workload::new(spec(), 0);
    for _ in 0..100 {
        let request = workload.next_request(10, true).expect("it is rendered");
        assert!(request.iter().all(|command| command.origin.tenant == request[0].origin.tenant));
    }
    let mixed: HashSet<_> = workload
        .next_request(100, false)
        .expect("it is rendered")
        .iter()
        .map(|o| o.origin.tenant)
        .collect();
    assert!(mixed.len() > 10);
}
