use anyhow::Result;
use clap::Args;
use schedule::Schedule;
use std::path::{Path, PathBuf};

// A schedule and the text that may take the place of its own, as several commands take them.
#[derive(Args)]
pub struct Recipe {
    /// The schedule
    schedule: PathBuf,
    /// Text files to train on, instead of those in the schedule
    #[arg(long, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
}

impl Recipe {
    /// The schedule's file.
    pub fn path(&self) -> &Path {
        &self.schedule
    }

    /// The schedule, on the text.
    pub fn read(&self) -> Result<Schedule> {
        let schedule = Schedule::read(&self.schedule)?;
        if self.text.is_empty() {
            return Ok(schedule);
        }
        Ok(schedule.with_text(self.text.clone())?)
    }
}
