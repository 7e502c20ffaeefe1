//! Fills in the ids and clients that commands lack, for `--id auto` and `--client`.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Ids of one millisecond: as many workers can number commands without using the same ids.
const IDS_PER_MS: u64 = 1_024;

/// Numbers commands by the clock: milliseconds × 1,024 + the worker's number, and always above its
/// last id. The ids stay below 2^53 until the year 2248.
#[derive(Debug)]
pub(crate) struct Ids {
    worker: u64,
    last: u64,
}

/// The values to fill in.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    /// Numbers commands that have no id.
    pub(crate) ids: Option<Ids>,
    /// The client of commands that name none.
    pub(crate) client: Option<String>,
    /// The client of commands that name none and whose id was filled in.
    pub(crate) client_if_id_filled: Option<String>,
}

#[derive(Deserialize)]
struct Given<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    client: Option<&'a RawValue>,
}

impl Ids {
    /// Numbers commands with a random worker's number.
    pub(crate) fn with_random_worker() -> Self {
        Self { worker: rand::rng().random_range(0..IDS_PER_MS), last: 0 }
    }

    fn next(&mut self, now_ms: u64) -> u64 {
        self.last = (self.last + 1).max(now_ms * IDS_PER_MS + self.worker);
        self.last
    }
}

/// A random name of a client, which no other process has in practice.
pub(crate) fn random_client() -> String {
    format!("send-{:016x}", rand::rng().random::<u64>())
}

/// The machine's clock: milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

impl Filling {
    /// Fills in the fields that the command lacks. A command that is not a JSON object stays as it
    /// is, and the server refuses it.
    pub(crate) fn fill(&mut self, json: &mut Vec<u8>, now_ms: u64) {
        let Ok(given) = serde_json::from_slice::<Given<'_>>(json) else { return };
        let mut fields = String::new();
        let mut client = self.client.as_ref();
        if let (None, Some(ids)) = (given.id, &mut self.ids) {
            fields += &format!("\"id\":{},", ids.next(now_ms));
            client = client.or(self.client_if_id_filled.as_ref());
        }
        if let (None, Some(client)) = (given.client, client) {
            fields += &format!("\"client\":{},", serde_json::Value::from(client.as_str()));
        }
        let Some(b'{') = json.first() else { return };
        if json[1..].trim_ascii_start().starts_with(b"}") {
            fields.pop();
        }
        // Inserts text instead of writing JSON anew, which would change long numbers and the order
        // of the fields.
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
    fn only_absent_fields_are_filled_in() {
        let ids = || Some(Ids { worker: 3, last: 0 });
        let mut auto =
            Filling { ids: ids(), client: None, client_if_id_filled: Some("c".to_owned()) };
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
        fn ids_grow_even_if_the_clock_goes_back(
            worker in 0..IDS_PER_MS,
            clock in prop::collection::vec(0u64..1 << 42, 1..100),
        ) {
            let mut ids = Ids { worker, last: 0 };
            let given: Vec<u64> = clock.iter().map(|now_ms| ids.next(*now_ms)).collect();
            prop_assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
            prop_assert!(given.iter().all(|id| *id < 1 << 53), "{given:?}");
        }
    }
}
