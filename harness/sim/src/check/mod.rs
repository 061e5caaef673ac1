//! The checker tests each invariant while a world runs, as early as the events allow, and again at the
//! world's end.
//!
//! The checks see what the fakes observed (every write and every frame, with its sender), what clients sent
//! and received, and when handlers ran. The checks use only two parts of the code under test: the state
//! machine, which defines the legal steps, and the parsers of messages, items and dead letters.
//!
//! In reading order: [`rules`] names the rules. [`world_model`] holds everything that the checks know, with a
//! [`request_model`] for each request and a [`client_model`] for each client. [`checker`] passes each event
//! to the model, which checks [`writes`] with [`write`](mod@write), [`runs`], [`pushes`], [`messages`] and
//! [`letters`]. At the end, [`settled`] checks the final state.

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
