//! The program as a user runs it.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod laws;
mod models;
mod pilots;
mod story;
mod sweeps;
mod world;
