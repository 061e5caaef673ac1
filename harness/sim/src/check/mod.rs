//! What must hold: each invariant, as soon as it can be told, and at the end.
//!
//! The checks see what the fakes saw (every write, every frame, who made it), what clients sent and received, and what handlers did. Of
//! the code that they check they use the state machine, which says what is legal, and what reads messages, items and letters.
//!
//! In reading order: [`rules`] names what can be broken; [`world_model`] is all that the checks know, made of a
//! [`request_model`] for each request and a [`client_model`] for each client. [`checker`] takes each event and has the
//! model look at it: [`writes`] by [`write`](mod@write), [`runs`], [`pushes`], [`messages`], [`letters`], and [`settled`] in the end.

mod checker;
mod client_model;
mod frame_header;
mod function;
mod image;
mod item;
mod letters;
mod limits;
mod messages;
mod owner;
mod pushes;
mod request_model;
mod rules;
mod runs;
mod settled;
#[cfg(test)]
mod tests;
mod violation;
mod world_model;
mod write;
mod writes;

pub(super) use checker::Checker;
pub use violation::Violation;
pub(super) use world_model::FinalState;
