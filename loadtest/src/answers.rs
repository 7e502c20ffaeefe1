//! What the API's answers say of each command.

use hyper::StatusCode;
use serde::Deserialize;

use crate::text::{shown, shown_bytes};
use crate::workload::{Order, Spec};
use auditor::http::{Answer, HttpError, is_passing};

/// The answer to one command, and, without `results`, to `POST /command`.
#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    log: Option<&'a str>,
    seq: Option<u64>,
    problem: Option<Problem>,
}

#[derive(Deserialize)]
struct AllAnswered<'a> {
    #[serde(borrow)]
    results: Vec<Answered<'a>>,
}

#[derive(Deserialize)]
struct Problem {
    status: u16,
    #[serde(default)]
    detail: String,
}

/// What an attempt came to, for one command.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The place that is promised for it.
    Receipt(u64),
    /// The target does not take it, and says so: 4xx.
    Refused(String),
    /// Nothing can be made of the answer, and it will be the same the next time.
    Odd(String),
    /// It may be another the next time.
    Again(String),
}

/// What an answer says of each command.
pub(crate) fn outcomes(
    answer: &Result<Answer, HttpError>,
    orders: &[Order],
    spec: &Spec,
) -> Vec<Outcome> {
    let all = |outcome: fn(String) -> Outcome, why: String| {
        orders.iter().map(|_| outcome(why.clone())).collect()
    };
    let answer = match answer {
        Ok(answer) if answer.status == StatusCode::ACCEPTED => answer,
        Ok(answer) => {
            let status = answer.status.as_u16();
            let why = || format!("{}: {}", answer.status, shown_bytes(&answer.body));
            return orders.iter().map(|_| without_receipt(status, why)).collect();
        }
        Err(HttpError::TimedOut(_)) => return all(Outcome::Again, "timeout".into()),
        Err(_) => return all(Outcome::Again, "connection".into()),
    };
    let parsed: Result<Vec<Answered<'_>>, _> = match orders {
        [_] => serde_json::from_slice(&answer.body).map(|one| vec![one]),
        _ => serde_json::from_slice(&answer.body).map(|all: AllAnswered<'_>| all.results),
    };
    let results = match parsed {
        Ok(results) if results.len() == orders.len() => results,
        Ok(results) => {
            let (results, sent) = (results.len(), orders.len());
            return all(Outcome::Odd, format!("a 202 with {results} results for {sent} commands"));
        }
        Err(error) => return all(Outcome::Odd, format!("a 202 that cannot be read: {error}")),
    };
    results.into_iter().zip(orders).map(|(result, order)| outcome(result, order, spec)).collect()
}

fn outcome(result: Answered<'_>, order: &Order, spec: &Spec) -> Outcome {
    match result {
        Answered { log: Some(log), seq: Some(seq), .. } if order.is_of_log(spec, log) => {
            Outcome::Receipt(seq)
        }
        Answered { problem: Some(Problem { status, detail }), .. } => {
            without_receipt(status, || format!("{status}: {}", shown(&detail)))
        }
        Answered { log, seq, .. } => {
            let (log, sent) = (log.map(shown), order.log(spec));
            Outcome::Odd(format!("a receipt for {log:?} {seq:?} of a command for {sent}"))
        }
    }
}

fn without_receipt(status: u16, why: impl Fn() -> String) -> Outcome {
    match status {
        _ if is_passing(status) => Outcome::Again(status.to_string()),
        400..=499 => Outcome::Refused(why()),
        _ => Outcome::Odd(why()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    fn spec() -> Spec {
        Spec {
            tenants: 1,
            org_prefix: "load-".into(),
            zipf: 0.0,
            users: 1,
            clients: 0,
            user_prefix: "r7+".into(),
            payload: 0,
            duplicates: 0.0,
            reused: 0.0,
            out_of_order: 0.0,
            rejected: 0.0,
            transfers: 0.0,
            seed: 7,
        }
    }

    fn said(status: u16, body: &str, commands: usize) -> Vec<Outcome> {
        let status = StatusCode::from_u16(status).expect("it is one");
        let body = bytes::Bytes::from(body.to_owned());
        let answer = Ok(Answer { status, retry_after: None, body });
        outcomes(&answer, &Workload::openings(0..1)[..commands], &spec())
    }

    #[test]
    fn what_an_answer_says_of_one_command() {
        let receipt = r#"{"log":"ledger/org:load-0","seq":17}"#;
        assert_eq!(said(202, receipt, 1), [Outcome::Receipt(17)]);
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(said(status, "", 1), [Outcome::Again(status.to_string())]);
        }
        for (status, body) in [(400, "no"), (404, ""), (413, "too large")] {
            assert!(matches!(&said(status, body, 1)[..], [Outcome::Refused(_)]), "{status}");
        }
        for (status, body) in [
            (200, receipt),
            (302, ""),
            (501, ""),
            (202, "{"),
            (202, r#"{"log":"ledger/org:load-1","seq":17}"#),
            (202, r#"{"log":"ledger/org:load-0"}"#),
            (202, "{}"),
        ] {
            assert!(matches!(&said(status, body, 1)[..], [Outcome::Odd(_)]), "{status} {body}");
        }
    }

    #[test]
    fn what_an_answer_says_of_each_of_several_commands() {
        let results = r#"{"results":[{"log":"ledger/org:load-0","seq":17},
            {"problem":{"status":503}},{"problem":{"status":400,"detail":"no \u001b[2J"}}]}"#;
        let refused = Outcome::Refused("400: no  [2J".into());
        let expected = [Outcome::Receipt(17), Outcome::Again("503".into()), refused];
        assert_eq!(said(202, results, 3), expected);
        assert!(said(202, results, 2).iter().all(|one| matches!(one, Outcome::Odd(_))));
        assert!(said(503, "", 3).iter().all(|one| matches!(one, Outcome::Again(_))));
    }

    #[test]
    fn what_is_told_of_a_refusal_is_short_and_steers_nothing() {
        let body = "\u{1b}[2J".repeat(100_000);
        let [Outcome::Refused(why)] = &said(400, &body, 1)[..] else { panic!("it is refused") };
        assert!(why.len() < 2_500 && !why.contains('\u{1b}'), "{}", why.len());
    }
}
