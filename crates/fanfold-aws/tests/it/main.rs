//! The adapters to AWS, and what Lambda brings.

mod dead_letters;
mod dense;
mod events;
mod publishing;
mod relaying;
mod wire;
