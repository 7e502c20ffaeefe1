//! Answers to a lookup by id.

use fanfold::Seq;
use fanfold::entry::Outcome;

use crate::Edge;

const LOG: &str = "/logs/ledger/org:acme";

#[tokio::test]
async fn an_entry_is_found_by_its_id() {
    let edge = Edge::new();
    edge.get(&format!("{LOG}?user=ann&id=1")).await.expect_problem(404, "unknown-id");
    for id in 1..=3 {
        edge.open(id).await.expect(202);
    }
    let pending = edge.get(&format!("{LOG}?user=ann&id=2")).await.expect(202);
    assert_eq!(pending.text, r#"{"status":"pending","seq":0}"#);
    edge.commit(1, vec![Outcome::Accepted(vec![]), Outcome::Duplicate { of: Seq(1) }]).await;
    edge.commit(3, vec![Outcome::rejected("no", "never")]).await;
    for (query, seq) in [("user=ann&id=1", 1), ("id=3&user=%61nn&wait=5000", 3)] {
        let entry = edge.get(&format!("{LOG}/{seq}")).await.expect(200);
        assert_eq!(edge.get(&format!("{LOG}?{query}")).await.expect(200).text, entry.text);
    }
    for query in ["user=ann&id=4", "user=ann&client=till&id=1", "user=bob&id=1"] {
        edge.get(&format!("{LOG}?{query}")).await.expect_problem(404, "unknown-id");
    }
}

#[tokio::test]
async fn a_wrong_lookup_names_the_parameter() {
    let edge = Edge::new();
    edge.open(1).await.expect(202);
    for (query, kind, detail) in [
        ("user=ann", "bad-parameter", "`id`: is required"),
        ("id=1", "bad-parameter", "`user`: is required"),
        ("client=till", "bad-parameter", "`user`: is required"),
        ("user=&id=1", "bad-name", "`user`: must not be empty"),
        ("user=a%2Fb&id=1", "bad-name", "`user`: contains '/' (U+002F)"),
        ("user=ann&client=+a&id=1", "bad-name", "`client`: begins or ends with U+0020"),
        ("user=resend&id=1", "reserved-name", "`user`: is reserved"),
        ("user=reactor:x&client=a&id=1", "reserved-name", "`user`: is reserved"),
        ("user=ann&id=0", "bad-parameter", "`id`: must be an integer from 1 to 9007199254740991"),
        ("user=ann&id=9007199254740992", "bad-parameter", "`id`: must be an integer from 1"),
        ("user=ann&id=1&from=1", "unknown-parameter", "`from`: unknown parameter"),
        ("user=ann&id=1&id=2", "repeated-parameter", "`id`: is given twice"),
        ("user=ann&id=1&wait=25001", "bad-parameter", "`wait`: must be an integer"),
    ] {
        let problem = edge.get(&format!("{LOG}?{query}")).await.expect_problem(400, kind);
        assert!(problem.text.contains(detail), "{query}: {}", problem.text);
    }
}
