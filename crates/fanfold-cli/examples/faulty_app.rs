//! An app with mistakes, for the drills of operators. With `FIXED` in the environment it is the next build, without them;
//! with `ELSEWHERE`, a build that does not have the service; with `MISCOUNTS`, one whose view folds otherwise, without a new
//! `VERSION`.

use std::env::var_os;
use std::process::ExitCode;

use fanfold::{
    App, Code, Context, DocumentId, Documents, Example, Recorded, RowKey, Service, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What users say. The service cannot decide on `panic`, cannot fold `unread`, and ends its process when it folds `abort`.
/// The view cannot show `boo`.
struct Talk;

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
enum Command {
    Say { text: String },
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Event {
    Said { text: String },
}

/// It refuses nothing.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

impl Code for Refused {
    fn code(&self) -> &'static str {
        "refused"
    }
}

fn is_fixed() -> bool {
    var_os("FIXED").is_some()
}

fn fails(text: &str, at: &str) {
    assert!(text != at || is_fixed(), "this build cannot take `{text}`");
}

impl Service for Talk {
    const NAME: &'static str = "talk";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[("said", 1)];
    type Command = Command;
    type Event = Event;
    type Document = u64;
    type Rejection = Refused;

    fn documents(_: &Command) -> Vec<DocumentId> {
        "all".parse().into_iter().collect()
    }

    fn init(_: &DocumentId) -> u64 {
        0
    }

    fn decide(
        _: &Documents<'_, u64>,
        Command::Say { text }: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Refused> {
        fails(text, "panic");
        let said = |all| (all, Event::Said { text: text.clone() });
        Ok("all".parse().into_iter().map(said).collect())
    }

    fn evolve(times: &mut u64, Event::Said { text }: &Event) {
        fails(text, "unread");
        if text == "abort" && !is_fixed() {
            std::process::abort();
        }
        *times += 1;
    }
}

/// `texts`: a row for each text, with how often it was said.
struct Texts;

impl View for Texts {
    const NAME: &'static str = "texts";
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Talk::NAME];
    const EVENTS: &'static [(&'static str, u32)] = Talk::EVENTS;
    type Event = Event;
    type Row = u64;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        let texts = entry.events().iter().map(|(_, Event::Said { text })| RowKey::new(text));
        texts.flatten().collect()
    }

    fn apply(row: Option<u64>, key: &RowKey, _: &Recorded<Event>) -> Option<u64> {
        fails(key.as_str(), "boo");
        let times = if var_os("MISCOUNTS").is_some() { 2 } else { 1 };
        Some(row.unwrap_or_default() + times)
    }
}

fn main() -> ExitCode {
    let command =
        r#"{"type":"talk","command":"say","id":1,"user":"ann","org":"acme","data":{"text":"hi"}}"#;
    if var_os("ELSEWHERE").is_some() {
        let app = App::named("talk").service::<ledger::Ledger>().view::<ledger::views::Balances>();
        let command = r#"{"type":"ledger","command":"open","id":1,"user":"ann","org":"acme","data":{"account":"cash"}}"#;
        return fanfold_cli::main(app.example(Example { command, view: "balances" }).build());
    }
    let app = App::named("talk").service::<Talk>().view::<Texts>();
    fanfold_cli::main(app.example(Example { command, view: Texts::NAME }).build())
}
