//! [`OperatorTimeline`]: records in the order of their ids.

use bytes::Bytes;
use fanfold::Time;

use super::must;
use crate::ports::{ActionId, OperatorTimeline, TimelinePage};

/// The whole port, from the time `now` on, which a provider may drop the oldest records by. It must hold no record yet.
pub async fn operator_timeline(port: &dyn OperatorTimeline, now: Time) {
    assert_eq!(listed(port, 10).await, [], "an empty timeline");
    let id = |at: u64, random| ActionId { at: now.plus_ms(at), random };
    let ids = [id(5, 3), id(0, 9), id(5, 1), id(1_000_000, 0), id(5, u64::MAX), id(7, 2)];
    let body = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut expected = Vec::new();
    for id in ids {
        let begun = body(&format!("begun {id}"));
        must("beginning", port.begin(id, &begun).await);
        expected.push((id, begun));
    }
    expected.sort_by(|a, b| b.cmp(a));
    for limit in [1, 2, 5, 6, 7, 1_000] {
        assert_eq!(listed(port, limit).await, expected, "pages of {limit}");
    }
    let below = must("a page", port.list(Some(id(5, 2)), 10).await);
    assert_eq!(below.records, expected[4..], "below an id that has no record");

    must("ending", port.end(ids[0], &body("done")).await);
    // A first attempt to begin may arrive after the action's end.
    must("beginning again", port.begin(ids[0], &body("late")).await);
    must("ending what has no record", port.end(id(6, 0), &body("alone")).await);
    for (found, body_of) in &mut expected {
        if *found == ids[0] {
            *body_of = body("done");
        }
    }
    expected.push((id(6, 0), body("alone")));
    expected.sort_by(|a, b| b.cmp(a));
    assert_eq!(listed(port, 3).await, expected, "after their ends");
}

/// All records, in pages.
async fn listed(port: &dyn OperatorTimeline, limit: usize) -> Vec<(ActionId, Bytes)> {
    let (mut all, mut before) = (Vec::new(), None);
    for _ in 0..1_000 {
        let page = must("a page of the timeline", port.list(before, limit).await);
        let TimelinePage { records, more } = page;
        assert!(records.len() <= limit, "{} records, at most {limit}", records.len());
        before = records.last().map(|(id, _)| *id).or(before);
        all.extend(records);
        if !more {
            return all;
        }
    }
    panic!("the pages do not end");
}
