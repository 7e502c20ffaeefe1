//! [`ViewTable`]: cursors.

use fanfold::host::body::lease::Lease;
use fanfold::{LogId, Seq, Time};
use futures::future::join_all;

use super::{RACERS, log, must};
use crate::ports::{Cursor, CursorMove, LeaseWrite, ParkedView, ViewTable};

fn at(seq: u64) -> Cursor {
    Cursor { seq: Seq(seq), behind: None, parked: None, lease: None }
}

pub(super) fn reason(seq: u64) -> ParkedView {
    let (reason, at) = (format!("cannot apply {seq}"), Time(seq * 1_000));
    ParkedView { seq: Seq(seq), reason, at, build: Some("b".to_owned()), rebuild: None }
}

async fn cursor(port: &dyn ViewTable, log: &LogId) -> Option<Cursor> {
    must("reading a cursor", port.cursor(log).await)
}

async fn move_cursor(port: &dyn ViewTable, log: &LogId, to: u64) -> CursorMove {
    must("moving a cursor", port.move_cursor(log, Seq(to)).await)
}

async fn mark_behind(port: &dyn ViewTable, log: &LogId, target: u64) {
    must("marking a cursor as behind", port.mark_behind(log, Seq(target)).await);
}

async fn park(port: &dyn ViewTable, log: &LogId, at: u64, parked: &ParkedView) {
    must("parking a view", port.park(log, Seq(at), parked).await);
}

fn lease(attempts: u32, owner: u64) -> Lease {
    Lease { attempts, at: Time(1_000), until: Time(61_000), owner }
}

async fn replace_lease(
    port: &dyn ViewTable,
    log: &LogId,
    before: Option<Lease>,
    lease: Lease,
) -> LeaseWrite {
    must("replacing a lease", port.replace_lease(log, before.as_ref(), &lease).await)
}

/// The port's cursors: advancing, falling behind, parking, releases, leases.
pub async fn cursors(port: &dyn ViewTable, prefix: &str) {
    cursors_go_forward_only(port, prefix).await;
    behind_is_the_highest_target(port, prefix).await;
    a_parked_cursor_stands_still(port, prefix).await;
    parking_needs_an_unmoved_cursor(port, prefix).await;
    a_release_needs_the_same_reason(port, prefix).await;
    a_lease_is_replaced_apart_from_the_cursor(port, prefix).await;
    one_of_many_racers_advances(port, prefix).await;
}

async fn cursors_go_forward_only(port: &dyn ViewTable, prefix: &str) {
    let (here, there) = (log(prefix, "advance"), log(prefix, "advance-elsewhere"));
    assert_eq!(cursor(port, &here).await, None, "a log that was never seen has no cursor");
    let mut seq = 0;
    for to in [3, 9, 10, 10, 9, 2, 11, 1 << 40, 11] {
        let expected = if to > seq { CursorMove::Moved } else { CursorMove::Refused(at(seq)) };
        assert_eq!(move_cursor(port, &here, to).await, expected, "advancing from {seq} to {to}");
        seq = seq.max(to);
        assert_eq!(cursor(port, &here).await, Some(at(seq)), "after advancing to {to}");
    }
    assert_eq!(cursor(port, &there).await, None, "advancing must not touch another log");
}

async fn behind_is_the_highest_target(port: &dyn ViewTable, prefix: &str) {
    let log = log(prefix, "behind");
    let behind = |seq, target| Some(Cursor { behind: Some(Seq(target)), ..at(seq) });
    for (target, highest) in [(7, 7), (5, 7), (10, 10), (9, 10)] {
        mark_behind(port, &log, target).await;
        assert_eq!(
            cursor(port, &log).await,
            behind(0, highest),
            "behind becomes the higher of both, and a cursor is made at zero"
        );
    }
    assert_eq!(move_cursor(port, &log, 4).await, CursorMove::Moved, "advancing while behind");
    assert_eq!(cursor(port, &log).await, behind(4, 10), "`behind` stays");
    let refused = move_cursor(port, &log, 4).await;
    let there = Cursor { behind: Some(Seq(10)), ..at(4) };
    assert_eq!(refused, CursorMove::Refused(there), "a refusal shows the cursor as it is");
    assert_eq!(move_cursor(port, &log, 12).await, CursorMove::Moved, "advancing past the target");
    assert_eq!(cursor(port, &log).await, behind(12, 10), "`behind` stays");
    mark_behind(port, &log, 20).await;
    assert_eq!(cursor(port, &log).await, behind(12, 20), "marking moves no cursor");
}

async fn a_parked_cursor_stands_still(port: &dyn ViewTable, prefix: &str) {
    let (here, there) = (log(prefix, "parked"), log(prefix, "parked-elsewhere"));
    move_cursor(port, &here, 4).await;
    move_cursor(port, &there, 4).await;
    park(port, &here, 4, &reason(5)).await;
    let mut expected = Cursor { parked: Some(reason(5)), ..at(4) };
    assert_eq!(
        cursor(port, &here).await,
        Some(expected.clone()),
        "the view is parked at its cursor"
    );
    for to in [5, 4, 100] {
        let refused = CursorMove::Refused(expected.clone());
        assert_eq!(move_cursor(port, &here, to).await, refused, "a parked cursor does not move");
    }
    park(port, &here, 4, &reason(6)).await;
    assert_eq!(cursor(port, &here).await, Some(expected.clone()), "the first reason stays");
    mark_behind(port, &here, 50).await;
    expected.behind = Some(Seq(50));
    assert_eq!(cursor(port, &here).await, Some(expected), "a parked cursor can be marked behind");
    assert_eq!(cursor(port, &there).await, Some(at(4)), "parking must not touch another log");
}

async fn parking_needs_an_unmoved_cursor(port: &dyn ViewTable, prefix: &str) {
    let parked = |seq, reason| Some(Cursor { parked: Some(reason), ..at(seq) });
    let fresh = log(prefix, "park-fresh");
    park(port, &fresh, 3, &reason(4)).await;
    let untouched = cursor(port, &fresh).await;
    assert!(
        untouched.as_ref().is_none_or(|cursor| cursor.parked.is_none()),
        "no cursor stands at 3, so nothing is parked there: {untouched:?}"
    );
    park(port, &fresh, 0, &reason(1)).await;
    assert_eq!(
        cursor(port, &fresh).await,
        parked(0, reason(1)),
        "at zero it parks a view without a cursor"
    );

    let moved = log(prefix, "park-moved");
    move_cursor(port, &moved, 9).await;
    for at in [0, 8, 10] {
        park(port, &moved, at, &reason(at + 1)).await;
        let there = cursor(port, &moved).await;
        assert_eq!(there, Some(self::at(9)), "the cursor is at 9, so parking at {at} does nothing");
    }
    park(port, &moved, 9, &reason(10)).await;
    assert_eq!(
        cursor(port, &moved).await,
        parked(9, reason(10)),
        "the view is parked at its cursor"
    );

    let marked = log(prefix, "park-marked");
    mark_behind(port, &marked, 5).await;
    park(port, &marked, 0, &reason(1)).await;
    let expected = Cursor { behind: Some(Seq(5)), parked: Some(reason(1)), ..at(0) };
    assert_eq!(cursor(port, &marked).await, Some(expected), "a cursor at zero is parked at zero");
}

async fn a_lease_is_replaced_apart_from_the_cursor(port: &dyn ViewTable, prefix: &str) {
    let (here, there) = (log(prefix, "attempts"), log(prefix, "attempts-elsewhere"));
    let first = lease(1, u64::MAX);
    let refused = replace_lease(port, &here, Some(first), lease(2, 7)).await;
    assert_eq!(refused, LeaseWrite::Refused(None), "no lease is stored yet");
    let absent = cursor(port, &here).await.unwrap_or_default();
    assert_eq!(absent, at(0), "a refused lease changes nothing");
    let mut expected = Cursor { lease: Some(first), ..at(0) };
    assert_eq!(replace_lease(port, &here, None, first).await, LeaseWrite::Stored);
    let made = cursor(port, &here).await;
    assert_eq!(made, Some(expected.clone()), "a lease makes a cursor at zero");
    assert_eq!(
        replace_lease(port, &here, None, first).await,
        LeaseWrite::Stored,
        "a retry of the same call is not refused"
    );

    let mut stands = first;
    let [late, other] = [Time(2_000), Time(62_000)];
    for next in [
        lease(2, 0),
        lease(0, 0),
        Lease { at: late, ..lease(u32::MAX, 0) },
        Lease { until: other, at: late, ..lease(u32::MAX, 0) },
        lease(1, 7),
    ] {
        for another in [
            None,
            Some(Lease { attempts: stands.attempts ^ 1, ..stands }),
            Some(Lease { at: Time(stands.at.0 + 1), ..stands }),
            Some(Lease { until: Time(stands.until.0 + 1), ..stands }),
            Some(Lease { owner: stands.owner ^ 1, ..stands }),
        ] {
            let refused = replace_lease(port, &here, another, next).await;
            assert_eq!(refused, LeaseWrite::Refused(Some(stands)), "{another:?} is not there");
        }
        assert_eq!(cursor(port, &here).await, Some(expected.clone()), "nothing has changed");
        assert_eq!(replace_lease(port, &here, Some(stands), next).await, LeaseWrite::Stored);
        (expected.lease, stands) = (Some(next), next);
        assert_eq!(cursor(port, &here).await, Some(expected.clone()), "the last lease is stored");
    }
    assert_eq!(move_cursor(port, &here, 4).await, CursorMove::Moved, "advancing under a lease");
    expected.seq = Seq(4);
    assert_eq!(cursor(port, &here).await, Some(expected.clone()), "advancing leaves the lease");
    let refused = CursorMove::Refused(expected.clone());
    assert_eq!(move_cursor(port, &here, 4).await, refused, "a refusal shows the lease");
    mark_behind(port, &here, 9).await;
    park(port, &here, 4, &reason(5)).await;
    (expected.behind, expected.parked) = (Some(Seq(9)), Some(reason(5)));
    let parked = cursor(port, &here).await;
    assert_eq!(parked, Some(expected.clone()), "marking and parking leave the lease");
    assert_eq!(replace_lease(port, &here, Some(stands), lease(0, 7)).await, LeaseWrite::Stored);
    expected.lease = Some(lease(0, 7));
    let stands = cursor(port, &here).await;
    assert_eq!(
        stands,
        Some(expected),
        "replacing the lease of a parked cursor changes only the lease"
    );
    assert_eq!(cursor(port, &there).await, None, "leases must not touch another log");

    let raced = log(prefix, "attempts-race");
    let racers =
        join_all((0..RACERS).map(|i| replace_lease(port, &raced, None, lease(1, i)))).await;
    let noted = racers.iter().filter(|replaced| **replaced == LeaseWrite::Stored).count();
    assert_eq!(noted, 1, "of {RACERS} leases in the same place exactly one is stored");
}

async fn one_of_many_racers_advances(port: &dyn ViewTable, prefix: &str) {
    let log = log(prefix, "advance-races");
    for to in 1..=5 {
        let racers = join_all((0..RACERS).map(|_| move_cursor(port, &log, to))).await;
        let moved = racers.iter().filter(|moved| **moved == CursorMove::Moved).count();
        assert_eq!(moved, 1, "of {RACERS} that advance to {to} exactly one moves the cursor");
        let refused = CursorMove::Refused(at(to));
        let others = racers.iter().all(|a| *a == CursorMove::Moved || *a == refused);
        assert!(others, "a refusal shows the cursor as it is: {racers:?}");
    }
    // Each target once, in a mixed order: 5 and 16 have no common divisor.
    join_all((0..RACERS).map(|i| move_cursor(port, &log, 100 + i * 5 % RACERS))).await;
    let furthest = Some(at(99 + RACERS));
    assert_eq!(cursor(port, &log).await, furthest, "racing advances end at the furthest");

    join_all((0..RACERS).map(|i| mark_behind(port, &log, 500 + i * 5 % RACERS))).await;
    let behind = cursor(port, &log).await.and_then(|cursor| cursor.behind);
    assert_eq!(behind, Some(Seq(499 + RACERS)), "racing marks end at the highest");
}

/// Parks the view at the entry behind `at`, for [`reason`].
pub(super) async fn park_at(port: &dyn ViewTable, log: &LogId, at: u64) {
    if at > 0 {
        move_cursor(port, log, at).await;
    }
    park(port, log, at, &reason(at + 1)).await;
}

async fn a_release_needs_the_same_reason(port: &dyn ViewTable, prefix: &str) {
    let log = log(prefix, "release");
    let cursor = async || must("reading a cursor", port.cursor(&log).await).unwrap_or_default();
    let release = async |parked, to| must("a release", port.release(&log, &parked, to).await);
    assert!(!release(reason(1), None).await, "there is no cursor");
    park_at(port, &log, 4).await;
    let lease = Lease { attempts: 2, at: Time(1_000), until: Time(61_000), owner: 7 };
    must("a lease", port.replace_lease(&log, None, &lease).await);
    must("marking", port.mark_behind(&log, Seq(9)).await);
    let before = cursor().await;
    let other = ParkedView { reason: "another reason".to_owned(), ..reason(5) };
    let later = ParkedView { at: Time(1), ..reason(5) };
    for wrong in [other, later, reason(6)] {
        assert!(!release(wrong, Some(Seq(5))).await, "it is parked for another reason");
        assert_eq!(cursor().await, before, "nothing has changed");
    }
    assert!(release(reason(5), None).await);
    let released = Cursor { parked: None, ..before.clone() };
    assert_eq!(cursor().await, released, "only the reason is gone");
    assert!(!release(reason(5), None).await, "it is released already");
    must("parking", port.park(&log, Seq(4), &reason(5)).await);
    assert!(release(reason(5), Some(Seq(5))).await);
    assert_eq!(cursor().await, Cursor { seq: Seq(5), ..released.clone() }, "behind the entry");
    must("parking", port.park(&log, Seq(5), &reason(6)).await);
    assert!(release(reason(6), Some(Seq(3))).await);
    assert_eq!(cursor().await, Cursor { seq: Seq(5), ..released }, "a cursor never goes back");
    let moved = must("moving", port.move_cursor(&log, Seq(6)).await);
    assert_eq!(moved, CursorMove::Moved, "a released cursor moves");
}
