//! For hosts and providers: what runs services and views, and stores what they make.
//!
//! Requests and their validation ([`request`]), the state machine of one [`log`], the [`window`] that recognises
//! repeats, the [`body`] of everything that is stored or sent, the [`limits`], the [invariants](mod@invariant), and the
//! [descriptions](describe) of an app. The services and views behind an object-safe form are
//! [`Services`](crate::Services) and [`Views`](crate::Views).

pub mod body;
pub mod canary;
pub mod catch;
pub mod command;
pub mod describe;
pub mod digest;
pub mod invariant;
pub mod knob;
pub mod limits;
pub mod log;
pub mod position;
pub mod request;
pub mod window;
