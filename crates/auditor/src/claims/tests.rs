use std::io::Write as _;

use super::*;

const RUN: &str = r#"{"run":{"format":1,"users":"r-"}}"#;

fn receipt(log: &str, seq: u64, id: u64) -> String {
    format!(
        r#"{{"receipt":{{"log":"{log}","seq":{seq},"user":"r-0","id":{id},"command":{{"open":{{"account":"a"}}}}}}}}"#
    )
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("it is written");
    file
}

#[test]
fn a_bad_line_is_refused_with_its_number_and_the_reason() {
    let good = receipt("ledger/org:a", 1, 1);
    for (text, number, says) in [
        (String::new(), 1, "first line"),
        (good.clone(), 1, "first line"),
        (r#"{"run":{"format":2,"users":"r-"}}"#.to_owned(), 1, "format 2"),
        (r#"{"run":"#.to_owned(), 1, "not a line"),
        (format!("{RUN}\n{good}\n{RUN}\n"), 3, "is a second"),
        (format!("{RUN}\n{good}\nnonsense\n{good}\n"), 3, "not a line"),
        (format!("{RUN}\n{good}\n{{\"receipt\":{{}}}}\n"), 3, "not a line"),
        (format!("{RUN}\n{}\n", receipt("canary/org:a", 1, 1)), 2, "not a log"),
        (format!("{RUN}\n{}\n", receipt("ledger/org:a/../b", 1, 1)), 2, "not a log"),
        (format!("{RUN}\n{}\n", receipt("ledger/org:a", 0, 1)), 2, "zero"),
        (format!("{RUN}\n{}\n", receipt("ledger/org:a", 1, 0)), 2, "zero"),
        (format!("{RUN}\n{{\"end\":{{}}}}\n{good}\n"), 3, "after the line"),
    ] {
        match Index::read(file(&text).path()) {
            Err(AuditError::Line { number: found, source: error }) => {
                assert_eq!(found, number, "{text}");
                assert!(error.to_string().contains(says), "{text}: {error}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let missing = Index::read(Path::new("/nowhere/at/all"));
    assert!(matches!(missing, Err(AuditError::Read { .. })));
}

#[test]
fn a_cut_off_last_line_is_ignored() {
    let good = receipt("ledger/org:a", 1, 1);
    for (text, is_cut_off) in [
        (format!("{RUN}\n{good}\n"), false),
        (format!("{RUN}\n{good}"), false),
        (format!("{RUN}\n{good}\n{}", &good[..40]), true),
    ] {
        let index = Index::read(file(&text).path()).expect(&text);
        assert_eq!(index.is_cut_off, is_cut_off, "{text}");
        assert_eq!(index.logs, [("ledger/org:a".to_owned(), 1)]);
    }
}

#[test]
fn groups_hold_at_most_the_given_weight() {
    let logs = [3, 3, 9, 1, 1, 1].iter().map(|weight| ("ledger/org:a".to_owned(), *weight));
    let run = Run::of_ledger("");
    let index = Index {
        run,
        logs: logs.collect(),
        is_cut_off: false,
        has_end: true,
        has_expectations: false,
    };
    for (max, expected) in [(6, vec![2, 1, 3]), (7, vec![2, 1, 3]), (100, vec![6]), (1, vec![1; 6])]
    {
        let groups = index.groups(max);
        assert_eq!(groups.iter().map(Range::len).collect::<Vec<_>>(), expected, "{max}");
        assert!(groups.windows(2).all(|pair| pair[0].end == pair[1].start), "{groups:?}");
    }
}

#[test]
fn a_group_holds_the_lines_of_its_logs() {
    let text = [
        RUN.to_owned(),
        receipt("ledger/org:a", 2, 2),
        receipt("ledger/org:b", 1, 1),
        r#"{"unanswered":{"log":"ledger/org:a","user":"r-0","id":3,"command":{"close":{"account":"b"}}}}"#.to_owned(),
        receipt("ledger/org:a", 1, 3),
    ];
    let group = Group::read(file(&text.join("\n")).path(), ["ledger/org:a"]).expect("it is");
    let claims = &group.logs["ledger/org:a"];
    assert_eq!(group.logs.len(), 1);
    assert_eq!(claims.receipts().iter().map(|c| c.seq).collect::<Vec<_>>(), [1, 2]);
    let user = group.names.find("r-0").expect("it is named");
    let Some(IdUse::One(Claim { command, memo: None, .. })) = claims.sent(user, 2) else {
        panic!("it was sent")
    };
    assert_eq!(group.names.command(command), Some(CommandRef::Open("a")));
    assert_eq!(claims.sent(user, 3), Some(IdUse::Several));
    assert_eq!(claims.sent(user, 4), None);
}
