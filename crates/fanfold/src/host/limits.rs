//! Every limit, with its unit and its source.
//!
//! Sizes are measured **before** compression, so that no codec changes an outcome (F9). A
//! simulation draws the [`Knob`]s smaller.

use crate::host::knob::Knob;

/// Bytes of one command, as the client sent it: a slot with one command then stays far below DynamoDB's item limit of
/// 400 KB.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Commands in one request to `POST /commands`.
pub const REQUEST_COMMANDS_MAX: usize = 500;
/// Bytes of one request body.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Levels of nesting in a command's data. `serde_json` gives up at 128, and stored bodies nest the
/// data a few levels deeper than the request did.
pub const COMMAND_DEPTH_MAX: usize = 64;
/// Bytes of a slot body, unless one command alone is larger. DynamoDB bills an update for the
/// larger of the item before and after, so slots stay small.
pub const SLOT_BODY_BYTES_MAX: Knob = Knob::new(32 * 1024, 200);
/// Bytes at which the relay closes a record of the command stream. Lambda's batches hold 6 MB, so larger records would
/// make batches of very different sizes.
pub const STREAM_RECORD_BYTES_SOFT: Knob = Knob::new(256 * 1024, 300);
/// Bytes of a record of the command stream (Kinesis, sustained).
pub const STREAM_RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Records in one `PutRecords` (Kinesis).
pub const PUT_RECORDS_MAX: Knob = Knob::new(500, 1);
/// Bytes in one `PutRecords` (Kinesis).
pub const PUT_RECORDS_BYTES_MAX: Knob = Knob::new(5 * 1024 * 1024, STREAM_RECORD_BYTES_MAX as u64);
/// Bytes of a commit body. DynamoDB's item limit is 400 KB, names and keys included.
pub const COMMIT_BYTES_MAX: Knob = Knob::new(350 * 1024, 2_000);
/// Bytes of a document (it must fit a DynamoDB item, with room to grow).
pub const DOCUMENT_BYTES_MAX: Knob = Knob::new(256 * 1024, 500);
/// Bytes of a view's row. Source: as for a document.
pub const ROW_BYTES_MAX: Knob = Knob::new(256 * 1024, 500);
/// Bytes at which a notification is closed: SNS bills 64 KB chunks, attributes included.
pub const NOTIFICATION_BYTES_SOFT: Knob = Knob::new(60 * 1024, 500);
/// Bytes of a notification (SNS takes 256 KiB, attributes included).
pub const NOTIFICATION_BYTES_MAX: Knob = Knob::new(240 * 1024, 1_500);
/// Messages in one `PublishBatch` (SNS).
pub const PUBLISH_BATCH_MAX: Knob = Knob::new(10, 1);
/// Bytes in one `PublishBatch` (SNS takes 256 KiB; one message of the hard limit must fit).
pub const PUBLISH_BATCH_BYTES_MAX: Knob = NOTIFICATION_BYTES_MAX;
/// Bytes of a name: users, organisations, commands, documents. DynamoDB sort keys hold 1,024.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of a service's, view's or reactor's name: `[a-z][a-z0-9-]{0,31}`.
pub const SERVICE_NAME_BYTES_MAX: usize = 32;
/// Bytes of a row's key. DynamoDB sort keys hold 1,024, prefix included.
pub const ROW_KEY_BYTES_MAX: usize = 512;
/// The end of command ids, exclusive: JSON numbers are exact below 2^53.
pub const COMMAND_ID_END: u64 = 1 << 53;
/// The end of seqs, exclusive: a reactor numbers its commands `seq * 64 + index`, which must stay a
/// command id.
pub const SEQ_END: u64 = 1 << 47;
/// Event kinds of one service; a notification's `prev` lists them all.
pub const EVENT_KINDS_MAX: usize = 64;
/// Ids remembered per (log, origin). A client keeps fewer than that in flight per log.
pub const WINDOW_IDS_MAX: Knob = Knob::new(2_048, 2);
/// Milliseconds of a log's own time for which a window keeps its ids without a new one. It is longer than a client is
/// offline between sending a command and sending it again. It bounds what a log keeps of clients that come once.
pub const WINDOW_IDLE_MS_MAX: Knob = Knob::new(7 * 24 * 60 * 60 * 1_000, 10_000);
/// Bytes of windows inside the head. Above that each window gets an item of its own.
pub const HEAD_WINDOWS_BYTES_MAX: Knob = Knob::new(8 * 1024, 64);
/// A snapshot is due when the journal has grown by this many bytes since the head (one read unit of DynamoDB's, so that
/// a cold load of a quiet log reads about one) ...
pub const SNAPSHOT_JOURNAL_BYTES_MIN: Knob = Knob::new(4 * 1024, 64);
/// ... and by this many times the bytes that the snapshot would write, so that it costs at most a twentieth.
pub const SNAPSHOT_FACTOR: Knob = Knob::new(20, 1);
/// A snapshot is also due after this many entries since the head, if they are [`SNAPSHOT_FACTOR`] times the write units
/// that it would take ...
pub const SNAPSHOT_ENTRIES_MIN: Knob = Knob::new(1_024, 4);
/// ... or after this many, because a cold load has to fold them and a warm log keeps 72 bytes of each ...
pub const SNAPSHOT_ENTRIES_MAX: Knob = Knob::new(65_536, 1_024);
/// ... or after this many bytes (eight pages of DynamoDB's), because a cold load has to read them.
pub const SNAPSHOT_JOURNAL_BYTES_MAX: Knob = Knob::new(8 * 1024 * 1024, 4_096);
/// Bytes of an item that one write unit of DynamoDB's pays for.
pub const WRITE_UNIT_BYTES: usize = 1_024;
/// Bytes of a rejection's or fault's message that are kept in an entry.
pub const MESSAGE_BYTES_MAX: usize = 1_024;
/// Bytes of a rejection's code.
pub const CODE_BYTES_MAX: usize = 64;
