//! The schemas of names, ids and positions.

use std::borrow::Cow;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};

use crate::entry::Raw;
use crate::host::limits::{COMMAND_ID_END, NAME_BYTES_MAX, ROW_KEY_BYTES_MAX, SEQ_END};
use crate::host::position::{CommandId, Seq};
use crate::names::{DocumentId, LogId, Name, Origin, Partition, RowKey, ServiceName};

// What patterns can say of the characters of names; the types' docs have the other rules (printable, in NFC).
/// One of a [`Name`].
pub const NAME: &str = r"^(?!\.{1,2}$)(?!\s)[^/?#%\\\x00-\x1f\x7f-\x9f]+(?<!\s)$";
/// One of a [`RowKey`].
pub const ROW_KEY: &str = r"^(?!(.*/)?\.{1,2}(/|$))(?!\s)[^?#%\\\x00-\x1f\x7f-\x9f]+(?<!\s)$";
/// One of a [`Partition`].
pub const PARTITION: &str =
    r"^(org|user):(?!\.{1,2}$)(?!\s)[^/?#%\\\x00-\x1f\x7f-\x9f]{1,128}(?<!\s)$";
const SERVICE: &str = "^[a-z][a-z0-9-]{0,31}$";
const LOG: &str = r"^[a-z][a-z0-9-]{0,31}/(org|user):[^/?#%\\\x00-\x1f\x7f-\x9f]{1,128}$";

/// Implements `JsonSchema` for a type that is written as a text or a number. Its schema stands wherever it is used.
macro_rules! inline_schema {
    ($($type:ty: $schema:expr;)*) => {
        $(
            impl JsonSchema for $type {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    $schema
                }
            }
        )*
    };
}

fn text(pattern: &str, bytes_max: usize) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": bytes_max, "pattern": pattern })
}

fn below(end: u64, from: u64) -> Schema {
    json_schema!({ "type": "integer", "minimum": from, "maximum": end - 1 })
}

inline_schema! {
    Name: text(NAME, NAME_BYTES_MAX);
    DocumentId: text(NAME, NAME_BYTES_MAX);
    RowKey: text(ROW_KEY, ROW_KEY_BYTES_MAX);
    ServiceName: json_schema!({ "type": "string", "pattern": SERVICE });
    Partition: json_schema!({ "type": "string", "pattern": PARTITION });
    LogId: json_schema!({ "type": "string", "pattern": LOG });
    Origin: json_schema!({ "type": "string" });
    Seq: below(SEQ_END, 0);
    CommandId: below(COMMAND_ID_END, 1);
    Raw: json_schema!(true);
}
