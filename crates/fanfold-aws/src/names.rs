//! The names that the template and the code share: tables, attributes, the index, and the environment
//! variables of the Lambdas. Those of metrics are in the crate `fanfold-lambda`. A test of
//! `ledger-lambda` compares the names with the template.

/// The environment variable with the beginning of all table names: the stack's name.
pub const TABLES: &str = "FANFOLD_TABLES";
/// The environment variable with the name of the Kinesis stream of commands.
pub const STREAM: &str = "FANFOLD_STREAM";
/// The environment variable with the ARNs of the topics, separated by commas. Their order must never
/// change, since a log's topic is chosen by index.
pub const TOPICS: &str = "FANFOLD_TOPICS";
/// The environment variable with the URL of the queue of a view's dead letters.
pub const DEAD_LETTERS: &str = "FANFOLD_DEAD_LETTERS";
/// The environment variable with the URL of the queue that is a view's event source; not set if SNS
/// calls the view.
pub const QUEUE: &str = "FANFOLD_QUEUE";
/// The environment variable with the longest `wait` of a request, in milliseconds.
pub const WAIT_MS_MAX: &str = "FANFOLD_WAIT_MS_MAX";
/// The environment variable with the longest time for which commands may not arrive before the API refuses new ones, in
/// hours.
pub const ADMISSION_HOURS_MAX: &str = "FANFOLD_ADMISSION_HOURS_MAX";
/// Which function of the app this is: `api`, `relay`, `processor`, `sweep`, `operate` or
/// `view:<name>`.
pub const ROLE: &str = "FANFOLD_ROLE";
/// The environment variable with the filter of the log: `info`, or `info,fanfold_pipeline=debug`.
pub const LOG: &str = "FANFOLD_LOG";
/// The environment variable with the number of canaries that the sweep sends.
pub const CANARIES: &str = "FANFOLD_CANARIES";
/// The environment variable with the number of logs that a sweep visits in one run.
pub const LOGS_PER_SWEEP: &str = "FANFOLD_LOGS_PER_SWEEP";

/// The index of the commands table that is the catalogue of logs.
pub const CATALOGUE_INDEX: &str = "catalogue";

/// The index of a view's table that lists the logs for which the view is parked.
pub const PARKED_INDEX: &str = "parked";

/// The names of attributes. They are short, because they are billed.
pub mod attribute {
    /// Partition key of every table: the log.
    pub const PK: &str = "pk";
    /// Sort key of every table that has one: N in the journal, S in all others.
    pub const SK: &str = "sk";
    /// Body: an envelope.
    pub const BODY: &str = "b";
    /// A seq.
    pub const SEQ: &str = "seq";
    /// The number of commands, or entries.
    pub const N: &str = "n";
    /// A time, in milliseconds.
    pub const AT: &str = "at";
    /// Slot: the token of its last append, 16 bytes.
    pub const TOKEN: &str = "tok";
    /// Slot: the catalogue's bucket; partition key of its index. Cursor: one of 8 buckets, while the view is parked, and
    /// until a released cursor moves; partition key of the index of what is parked.
    pub const BUCKET: &str = "h";
    /// Slot: set when the log is frozen.
    pub const CLOSED: &str = "closed";
    /// Commit: the nonce of the attempt that stored it. Parked item in parts: the nonce of the call
    /// that stored them.
    pub const NONCE: &str = "w";
    /// Cursor: the seq that the view's sweep has to reach.
    pub const BEHIND: &str = "behind";
    /// Cursor: why the view is parked, as JSON.
    pub const PARKED: &str = "parked";
    /// Cursor, lease: the number of attempts that have not returned.
    pub const ATTEMPTS: &str = "attempts";
    /// Cursor, lease: when the last attempt began, in milliseconds.
    pub const ATTEMPT_AT: &str = "begun";
    /// Cursor, lease: when the last attempt's call is over, in milliseconds.
    pub const UNTIL: &str = "until";
    /// Cursor, lease: the process that began the last attempt.
    pub const OWNER: &str = "owner";
    /// Position of a sweep: the log after which it continues.
    pub const LOG: &str = "log";
    /// Tombstone of a row, or record of an operator's action: when DynamoDB may remove it, in seconds; the table's TTL attribute.
    pub const TTL: &str = "ttl";
}

/// The names of a stack's tables, which all begin with the stack's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    prefix: String,
}

impl Tables {
    /// The tables of the stack with this name.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The stack's name.
    pub fn stack(&self) -> &str {
        &self.prefix
    }

    /// The table of slots, with the catalogue as its index.
    pub fn commands(&self) -> String {
        self.named("commands")
    }

    /// The table of commits.
    pub fn journal(&self) -> String {
        self.named("journal")
    }

    /// The table of heads, documents and windows.
    pub fn state(&self) -> String {
        self.named("state")
    }

    /// The table of parked items.
    pub fn parked(&self) -> String {
        self.named("parked")
    }

    /// The table of announced views.
    pub fn views(&self) -> String {
        self.named("views")
    }

    /// The table of what operators did.
    pub fn timeline(&self) -> String {
        self.named("timeline")
    }

    /// The table of a view's cursors and rows, in one version.
    pub fn view(&self, name: &str, version: u32) -> String {
        self.named(&format!("view-{name}-v{version}"))
    }

    fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }
}
