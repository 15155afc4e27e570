//! Properties of the whole workspace.

#![allow(clippy::unwrap_used)]

mod architecture;
mod golden;
mod growth;
mod resume;
mod schedules;
mod stages;
mod start;
