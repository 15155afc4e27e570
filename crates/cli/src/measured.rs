//! Growth points from measured curves, without a law.

use crate::observations::{check_no_folder_of_runs, check_random_start, run_of};
use crate::output;
use crate::run_record::check_comparable_in;
use anyhow::{Context, Result, bail};
use measure::{CurvePoint, LearningCurve, SmoothCurve};
use scaling::plan::{MeasuredGrowth, measured_growths};
use serde::Serialize;
use std::path::{Path, PathBuf};
use trainer::RunFolder;

#[derive(Serialize)]
struct Report {
    files: Vec<PathBuf>,
    growths: Vec<Option<MeasuredGrowth>>,
}

/// A run's held-out loss over compute, smoothed, with a warning where the learning rate falls: losses from there on are no
/// points of one curve; and its N.
fn steady_curve(path: &Path) -> Result<(f64, SmoothCurve)> {
    let file = RunFolder::curve_file(path);
    check_random_start(&run_of(&file))?;
    let curve = LearningCurve::read(&file)?;
    if curve.points.iter().any(|point| point.stage > 0) {
        bail!(
            "{}: has grown; growth points lie between curves of one size each, from scratch",
            file.display()
        );
    }
    let peak = curve.peak_rate();
    if curve.points.last().is_some_and(|end| !end.is_at_rate(peak)) {
        output::note(&format!(
            "warning: {}: its learning rate decays, so its losses fall below the curve of a constant one, and what is read \
             from them with it; plan from a law of ends (staged pilot) or from runs at a constant rate",
            file.display()
        ));
    }
    let smooth = SmoothCurve::of_run(&curve).with_context(|| file.display().to_string())?;
    Ok((curve.points.last().map_or(0.0, CurvePoint::n_params), smooth))
}

/// Prints the best growth between each curve and the next.
pub fn report(files: &[PathBuf], json: bool) -> Result<()> {
    for file in files {
        check_no_folder_of_runs(file).context("--curves")?;
    }
    let paths: Vec<PathBuf> = files.iter().map(|file| RunFolder::curve_file(file)).collect();
    if let Some(path) = output::given_twice(&paths) {
        bail!("--curves: {}: is given twice", path.display());
    }
    let folders: Vec<PathBuf> = paths.iter().map(|path| run_of(path)).collect();
    check_comparable_in(&folders).context("--curves")?;
    let curves = files.iter().map(|path| steady_curve(path)).collect::<Result<Vec<_>>>()?;
    let (sizes, curves): (Vec<f64>, Vec<SmoothCurve>) = curves.into_iter().unzip();
    if let Some(i) = sizes.windows(2).position(|pair| pair[0] >= pair[1]) {
        bail!(
            "--curves: {}: N = {:.3e}, after N = {:.3e} of {}: the smallest model comes first",
            files[i + 1].display(),
            sizes[i + 1],
            sizes[i],
            files[i].display()
        );
    }
    let growths = measured_growths(&curves);
    if json {
        return output::json(&Report { files: files.to_vec(), growths });
    }
    for (i, growth) in growths.iter().enumerate() {
        let (small, large) = (files[i].display(), files[i + 1].display());
        let Some(found) = growth else {
            output::line(&format!("{small} -> {large}: do not grow: it is nowhere cheaper"))?;
            continue;
        };
        output::line(&format!(
            "{small} -> {large}: grow at loss {:.4}, after {:.3e} FLOPs instead of {:.3e} from scratch, where the \
             slope d ln L / d ln C is {:.4}; saves {:.1} % at loss {:.4}",
            found.loss,
            found.compute_small,
            found.compute_large,
            found.growth_slope,
            100.0 * found.saving,
            found.final_loss,
        ))?;
        if found.at_end_of_small {
            output::note(&format!(
                "{small} ends before the best point: a longer run may save more"
            ));
        }
    }
    Ok(())
}
