//! The body of a slot: the batch of commands of one append.

use super::{DecodeError, envelope};
use crate::host::command::Command;
use crate::host::limits::SLOT_BODY_BYTES_MAX;

const FORMAT: u8 = 1;

/// Packs commands, in order, into as few bodies as the limit allows. Returns each body with the number of its commands.
/// A command larger than the limit gets a body of its own.
pub fn encode(commands: &[&Command]) -> Result<Vec<(usize, Vec<u8>)>, serde_json::Error> {
    let mut bodies = Vec::with_capacity(1);
    let mut payload = Vec::with_capacity(256);
    let mut n = 0;
    for command in commands {
        let start = payload.len();
        payload.push(if n == 0 { b'[' } else { b',' });
        serde_json::to_writer(&mut payload, command)?;
        if n > 0 && payload.len() + 1 > SLOT_BODY_BYTES_MAX.get() {
            let mut rest = payload.split_off(start);
            rest[0] = b'[';
            bodies.push((n, close(payload)));
            (payload, n) = (rest, 0);
        }
        n += 1;
    }
    if n > 0 {
        bodies.push((n, close(payload)));
    }
    Ok(bodies)
}

fn close(mut payload: Vec<u8>) -> Vec<u8> {
    payload.push(b']');
    envelope::seal(FORMAT, &payload)
}

/// The commands of a slot, in order.
pub fn decode(body: &[u8]) -> Result<Vec<Command>, DecodeError> {
    super::read_json(&envelope::open(FORMAT, body)?)
}
