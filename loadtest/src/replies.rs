//! Reads the API's answers to commands.

use hyper::StatusCode;
use serde::Deserialize;

use crate::text::{shown, shown_bytes};
use crate::workload::{ClientCommand, Spec};
use auditor::http::{Answer, HttpError, is_transient};

/// The answer to one command: of `POST /command`, or an item of `results`.
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

/// The answer to one command.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    Receipt(u64),
    /// The target refuses the command: 4xx.
    Refused(String),
    /// The API has no such answer, and a retry would get the same.
    Unexpected(String),
    /// A retry may get another answer.
    Retry(String),
}

pub(crate) fn replies(
    answer: &Result<Answer, HttpError>,
    commands: &[ClientCommand],
    spec: &Spec,
) -> Vec<Reply> {
    let all = |reply: fn(String) -> Reply, why: String| {
        commands.iter().map(|_| reply(why.clone())).collect()
    };
    let answer = match answer {
        Ok(answer) if answer.status == StatusCode::ACCEPTED => answer,
        Ok(answer) => {
            let status = answer.status.as_u16();
            let why = || refusal(answer);
            return commands.iter().map(|_| without_receipt(status, why)).collect();
        }
        Err(HttpError::TimedOut(_)) => return all(Reply::Retry, "timeout".into()),
        Err(_) => return all(Reply::Retry, "connection".into()),
    };
    let parsed: Result<Vec<Answered<'_>>, _> = match commands {
        [_] => serde_json::from_slice(&answer.body).map(|one| vec![one]),
        _ => serde_json::from_slice(&answer.body).map(|all: AllAnswered<'_>| all.results),
    };
    let results = match parsed {
        Ok(results) if results.len() == commands.len() => results,
        Ok(results) => {
            let (results, sent) = (results.len(), commands.len());
            return all(
                Reply::Unexpected,
                format!("the 202 has {results} results for {sent} commands"),
            );
        }
        Err(error) => return all(Reply::Unexpected, format!("the 202 cannot be read: {error}")),
    };
    results
        .into_iter()
        .zip(commands)
        .map(|(result, command)| reply(result, command, spec))
        .collect()
}

/// Why the target refuses all commands of a request.
fn refusal(answer: &Answer) -> String {
    let problem: Option<Problem> = serde_json::from_slice(&answer.body).ok();
    match problem.filter(|problem| !problem.detail.is_empty()) {
        Some(problem) => format!("{}: {}", answer.status.as_u16(), shown(&problem.detail)),
        None => format!("{}: {}", answer.status, shown_bytes(&answer.body)),
    }
}

fn reply(result: Answered<'_>, command: &ClientCommand, spec: &Spec) -> Reply {
    match result {
        Answered { log: Some(log), seq: Some(seq), .. } if command.is_of_log(spec, log) => {
            Reply::Receipt(seq)
        }
        Answered { problem: Some(Problem { status, detail }), .. } => {
            without_receipt(status, || format!("{status}: {}", shown(&detail)))
        }
        Answered { log, seq, .. } => {
            let (log, sent) = (log.map(shown), command.log(spec));
            Reply::Unexpected(format!(
                "a receipt for {log:?} {seq:?}, and the command was for {sent}"
            ))
        }
    }
}

fn without_receipt(status: u16, why: impl Fn() -> String) -> Reply {
    match status {
        _ if is_transient(status) => Reply::Retry(status.to_string()),
        400..=499 => Reply::Refused(why()),
        _ => Reply::Unexpected(why()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Openings;
    use crate::workload::tests::spec;

    fn replies_to(status: u16, body: &str, commands: usize) -> Vec<Reply> {
        let spec = Spec { user_prefix: "r7+".into(), ..spec() };
        let status = StatusCode::from_u16(status).expect("it is one");
        let body = bytes::Bytes::from(body.to_owned());
        let answer = Ok(Answer { status, retry_after: None, body });
        let openings = Openings::new(&spec).of(0..1).expect("they are the ledger's");
        replies(&answer, &openings[..commands], &spec)
    }

    #[test]
    fn each_status_of_a_single_command_has_its_reply() {
        let receipt = r#"{"log":"ledger/org:load-0","seq":17}"#;
        assert_eq!(replies_to(202, receipt, 1), [Reply::Receipt(17)]);
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(replies_to(status, "", 1), [Reply::Retry(status.to_string())]);
        }
        for (status, body) in [(400, "no"), (404, ""), (413, "too large")] {
            assert!(matches!(&replies_to(status, body, 1)[..], [Reply::Refused(_)]), "{status}");
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
            assert!(
                matches!(&replies_to(status, body, 1)[..], [Reply::Unexpected(_)]),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn each_command_of_a_batch_has_its_own_reply() {
        let results = r#"{"results":[{"log":"ledger/org:load-0","seq":17},
            {"problem":{"status":503}},{"problem":{"status":400,"detail":"no \u001b[2J"}}]}"#;
        let refused = Reply::Refused("400: no  [2J".into());
        let expected = [Reply::Receipt(17), Reply::Retry("503".into()), refused];
        assert_eq!(replies_to(202, results, 3), expected);
        assert!(replies_to(202, results, 2).iter().all(|one| matches!(one, Reply::Unexpected(_))));
        assert!(replies_to(503, "", 3).iter().all(|one| matches!(one, Reply::Retry(_))));
    }

    #[test]
    fn a_refusal_is_cut_and_has_no_control_characters() {
        let body = "\u{1b}[2J".repeat(100_000);
        let [Reply::Refused(why)] = &replies_to(400, &body, 1)[..] else { panic!("it is refused") };
        assert!(why.len() < 2_500 && !why.contains('\u{1b}'), "{}", why.len());
    }
}
