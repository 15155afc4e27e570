use crate::{figures, fit, output};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use scaling::Fit;
use schedule::Schedule;
use std::path::{Path, PathBuf};

/// Arguments of `staged plot`.
#[derive(Args)]
#[command(after_help = "Examples:\n  staged plot law.json -o fit.svg\n  \
    staged plot schedules/x.toml --show curves -o curves.png\n  \
    staged plot runs/small runs/big -o loss.svg")]
pub struct Plot {
    /// Runs, or one planned schedule (.toml), or one law (.json)
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// What of a schedule is shown
    #[arg(long, value_enum, default_value_t = Show::Course)]
    show: Show,
    /// Where to write the figure: .svg or .png
    #[arg(short, long, value_name = "FIGURE")]
    out: PathBuf,
}

/// What of a schedule is shown.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Show {
    /// Size, learning rate, batch and predicted loss over compute
    Course,
    /// Learning curves of each size, the staged run and its growth points
    Curves,
    /// The saving by where the run stops
    Saving,
}

impl Plot {
    pub fn run(self) -> Result<()> {
        let is = |path: &Path, kind: &str| path.extension().is_some_and(|end| end == kind);
        let first = &self.sources[0];
        let alone = || match self.sources.len() {
            1 => Ok(()),
            n => bail!("{}: is drawn alone, not with {} others", first.display(), n - 1),
        };
        let figure = if is(first, "toml") {
            alone()?;
            let schedule = Schedule::read(first)?;
            match self.show {
                Show::Course => figures::course(&schedule),
                Show::Curves => figures::learning_curves(&schedule),
                Show::Saving => figures::saving_by_stop(&schedule),
            }
            .with_context(|| first.display().to_string())?
        } else if is(first, "json") {
            alone()?;
            let text = std::fs::read_to_string(first)
                .with_context(|| format!("{} cannot be read", first.display()))?;
            let law: Fit = serde_json::from_str(&text)
                .with_context(|| format!("{}: no law of staged fit", first.display()))?;
            figures::fit_quality(&law, &fit::points_path(first))?
        } else {
            figures::runs(&self.sources)?
        };
        figure.write(&self.out)?;
        output::line(&format!("figure: {}", self.out.display()))
    }
}
