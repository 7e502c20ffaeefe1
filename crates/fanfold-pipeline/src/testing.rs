//! For tests over ports: one interceptor that records the calls of ports and breaks those that a
//! test names, a clock that only tests move, topics that keep their messages, and crashes.

mod crash;
mod faults;
mod ports;

pub use crash::{crash, crashes, survives};
pub use faults::{Broken, Faults, Op, yield_once};
pub use ports::{Faulty, ManualEnv, SentMessages};
