use crate::compare::sides;
use crate::comparison::{Comparison, Sides};
use crate::law::fit_of;
use crate::run_figure::predicted_against_actual;
use crate::run_record::{run_folders, runs_at};
use crate::{figures, fit, output};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use schedule::Schedule;
use std::path::{Path, PathBuf};
use trainer::RunFolder;

/// Arguments of `staged plot`.
#[derive(Args)]
#[command(
    override_usage = "staged plot <SOURCES>... [OPTIONS]",
    after_help = "Examples:\n  staged plot law.json -o fit.svg\n  \
    staged plot schedules/x.toml --show curves -o curves.png\n  \
    staged plot runs/staged runs/scratch -o story.svg\n  \
    staged plot runs/small runs/big -o loss.svg"
)]
pub struct Plot {
    /// A staged run and its baselines (predicted against actual), or runs of one stage each, or one planned
    /// schedule (.toml), or one law (.json)
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// What of a schedule is shown [default: course]
    #[arg(long, value_enum)]
    show: Option<Show>,
    /// Pilot runs whose compute is counted, instead of those that the plan names
    #[arg(long, num_args = 1.., value_name = "RUN")]
    pilots: Vec<PathBuf>,
    /// Where to write the figure: .svg or .png [default: figure.svg in the folder of a staged run]
    #[arg(short, long, value_name = "FIGURE")]
    out: Option<PathBuf>,
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
        let staged = is_staged(first)?;
        let out = match &self.out {
            Some(out) => out.clone(),
            None if staged => first.join("figure.svg"),
            None if !first.exists() => {
                bail!("{}: there is no such file or folder", first.display())
            }
            None => bail!("{}: -o is needed to say where the figure goes", first.display()),
        };
        figures::check_target(&out)?;
        let saves = staged && self.sources.len() > 1;
        if !self.pilots.is_empty() && !saves {
            bail!(
                "--pilots: they are counted in the saving of a staged run, named before its baselines"
            );
        }
        if self.show.is_some() && !is(first, "toml") {
            bail!("--show: {} is no schedule (.toml)", first.display());
        }
        let figure = if is(first, "toml") {
            alone()?;
            let schedule = Schedule::read(first)?;
            match self.show.unwrap_or(Show::Course) {
                Show::Course => figures::course(&schedule),
                Show::Curves => figures::learning_curves(&schedule),
                Show::Saving => figures::saving_by_stop(&schedule),
            }
            .with_context(|| first.display().to_string())?
        } else if is(first, "json") {
            alone()?;
            let text = std::fs::read_to_string(first)
                .with_context(|| format!("{} cannot be read", first.display()))?;
            let law = fit_of(&text, &first.display().to_string())?;
            figures::fit_quality(&law, &fit::points_path(first))?
        } else if staged {
            let sides = sides(first, &self.sources[1..], &[], &self.pilots)?;
            let found = compared(&sides)?;
            if let Some(found) = &found {
                found.remarks().chain(found.without_saving()).for_each(|text| output::note(&text));
            }
            predicted_against_actual(&sides.staged, &sides.scratch, found.as_ref())
        } else {
            figures::runs(&runs_in(&self.sources)?)?
        };
        figures::write(&figure, &out).with_context(|| first.display().to_string())?;
        output::line(&format!("figure: {}", out.display()))
    }
}

/// The runs and curves that are named, and those in folders of runs that are.
fn runs_in(sources: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let of_one = |path: &PathBuf| {
        if path.is_dir() && !RunFolder::curve_file(path).exists() {
            runs_at(path)
        } else {
            Ok(vec![path.clone()])
        }
    };
    let found = sources.iter().map(of_one).collect::<Result<Vec<_>>>()?.concat();
    if let Some(path) = output::given_twice(&found) {
        bail!("{}: is given twice", path.display());
    }
    Ok(found)
}

/// Whether a folder holds a run of several stages or with a prediction, or such runs.
fn is_staged(path: &Path) -> Result<bool> {
    let first = if RunFolder::is_run(path) {
        Some(path.to_path_buf())
    } else {
        run_folders(path).ok().and_then(|runs| runs.into_iter().next())
    };
    let schedule = first.map(|run| RunFolder::schedule_of(&run)).transpose()?;
    Ok(schedule
        .is_some_and(|schedule| schedule.stages().len() > 1 || schedule.prediction().is_some()))
}

/// What the baselines tell, where there are any.
fn compared(sides: &Sides) -> Result<Option<Comparison>> {
    (!sides.scratch.is_empty()).then(|| sides.compare(&[])).transpose()
}
