//! `--id auto` and `--client`: what a command lacks is filled in before it is sent.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Ids of one millisecond: the worker's number tells apart the ids of several processes.
const PER_MS: u64 = 1_024;

/// Numbers commands by the clock: milliseconds × 1,024 + the worker's number, and always above the
/// last. Below 2^53 until the year 2248.
#[derive(Debug)]
pub struct Ids {
    worker: u64,
    last: u64,
}

/// What to fill in.
#[derive(Debug, Default)]
pub struct Filling {
    /// Ids for commands without one.
    pub ids: Option<Ids>,
    /// The client of commands without one.
    pub client: Option<String>,
    /// The client of commands without one whose id was filled in.
    pub client_of_filled: Option<String>,
}

/// The fields that may be absent.
#[derive(Deserialize)]
struct Given<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    client: Option<&'a RawValue>,
}

impl Ids {
    /// With a worker's number by chance.
    pub fn of_any_worker() -> Self {
        Self { worker: rand::rng().random_range(0..PER_MS), last: 0 }
    }

    fn next(&mut self, now_ms: u64) -> u64 {
        self.last = (self.last + 1).max(now_ms * PER_MS + self.worker);
        self.last
    }
}

/// A name for a client that no other process has.
pub fn any_client() -> String {
    format!("send-{:016x}", rand::rng().random::<u64>())
}

/// The machine's clock, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

impl Filling {
    /// Fills in what the command lacks. What is no JSON object stays as it is: the server says so.
    pub fn fill(&mut self, json: &mut Vec<u8>, now_ms: u64) {
        let Ok(given) = serde_json::from_slice::<Given<'_>>(json) else { return };
        let mut fields = String::new();
        let mut client = self.client.as_ref();
        if let (None, Some(ids)) = (given.id, &mut self.ids) {
            fields += &format!("\"id\":{},", ids.next(now_ms));
            client = client.or(self.client_of_filled.as_ref());
        }
        if let (None, Some(client)) = (given.client, client) {
            fields += &format!("\"client\":{},", serde_json::Value::from(client.as_str()));
        }
        let Some(b'{') = json.first() else { return };
        if json[1..].trim_ascii_start().starts_with(b"}") {
            fields.pop();
        }
        // The rest stays as it was written: numbers of any length, the order of the fields.
        json.splice(1..1, fields.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(filling: &mut Filling, json: &str) -> String {
        let mut json = json.as_bytes().to_vec();
        filling.fill(&mut json, 7);
        String::from_utf8(json).expect("it is text")
    }

    #[test]
    fn only_what_is_absent_is_filled_in() {
        let ids = || Some(Ids { worker: 3, last: 0 });
        let mut auto = Filling { ids: ids(), client: None, client_of_filled: Some("c".to_owned()) };
        assert_eq!(filled(&mut auto, r#"{"user":"a"}"#), r#"{"id":7171,"client":"c","user":"a"}"#);
        assert_eq!(filled(&mut auto, "{ }"), r#"{"id":7172,"client":"c" }"#);
        assert_eq!(
            filled(&mut auto, r#"{"client":"x","data":1e400}"#),
            r#"{"id":7173,"client":"x","data":1e400}"#
        );
        for unchanged in [r#"{"id":1}"#, "17", "[]", "{", ""] {
            assert_eq!(filled(&mut auto, unchanged), unchanged);
        }
        let mut named = Filling { client: Some("a\"b".to_owned()), ..Filling::default() };
        assert_eq!(filled(&mut named, r#"{"id":1}"#), r#"{"client":"a\"b","id":1}"#);
        assert_eq!(filled(&mut named, r#"{"client":"x"}"#), r#"{"client":"x"}"#);
    }

    proptest! {
        #[test]
        fn ids_grow_whatever_the_clock_does(
            worker in 0..PER_MS,
            clock in prop::collection::vec(0u64..1 << 42, 1..100),
        ) {
            let mut ids = Ids { worker, last: 0 };
            let given: Vec<u64> = clock.iter().map(|now_ms| ids.next(*now_ms)).collect();
            prop_assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
            prop_assert!(given.iter().all(|id| *id < 1 << 53), "{given:?}");
        }
    }
}
