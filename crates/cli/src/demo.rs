use crate::{output, train};
use anyhow::{Context, Result};
use clap::Args;
use model::DeviceChoice;
use schedule::Schedule;
use std::path::{Path, PathBuf};
use trainer::{Outcome, RunOptions};

/// The embedded default, so that the program needs no file.
const SCHEDULE: &str = include_str!("../../../schedules/demo.toml");

/// Arguments of `staged demo`.
#[derive(Args)]
#[command(after_help = "Example: staged demo --steps 100 --out runs/try")]
pub struct Demo {
    /// Steps to make, instead of the schedule's
    #[arg(long)]
    steps: Option<u64>,
    /// The run's folder [default: runs/demo, or the first free of runs/demo-2, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        let mut schedule = Schedule::parse(SCHEDULE, Path::new("schedules/demo.toml"))?;
        if let Some(steps) = self.steps {
            schedule = schedule.with_steps(steps)?;
        }
        let folder = match self.out {
            Some(folder) => folder,
            None => free_folder().context("runs/demo and its numbered siblings are all taken")?,
        };
        output::note(&format!(
            "a GPT learns the synthetic language from scratch, in {}",
            folder.display()
        ));
        let options = RunOptions {
            schedule,
            folder: folder.clone(),
            device: DeviceChoice::Cpu,
            resume: false,
        };
        let summary = train::run(options)?;
        if summary.outcome == Outcome::Interrupted {
            let folder = folder.display();
            output::note(&format!(
                "interrupted; go on with: staged train {folder}/schedule.toml --out {folder} --resume"
            ));
        }
        if self.json {
            return output::json(&summary);
        }
        train::report(&summary)?;
        output::line(&format!("curve: {}", folder.join("metrics.csv").display()))
    }
}

fn free_folder() -> Option<PathBuf> {
    let names = (1..1000).map(|n| if n == 1 { "demo".into() } else { format!("demo-{n}") });
    names.map(|name| Path::new("runs").join(name)).find(|folder| !folder.exists())
}
