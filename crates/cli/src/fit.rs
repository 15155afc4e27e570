use crate::law::is_pace;
use crate::observations::{Observations, Source};
use crate::{figures, output, progress};
use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use scaling::{Fit as Law, FitOptions, IsoFlop, LawForm, Quantity};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use trainer::RunFolder;

/// Arguments of `staged fit`.
#[derive(Args)]
#[command(after_help = "Examples:\n  staged fit runs/*/metrics.csv --stable-only -o law.json\n  \
    staged fit points.csv --columns n_params=N,compute=C,loss=loss --drop-highest 5 -o law.json\n  \
    staged fit sweep.csv --isoflop --columns compute=flops,n_params=N,loss=loss --where decay=cosine")]
pub struct Fit {
    /// Run folders, metrics.csv files, or other CSV tables (see --columns)
    #[arg(required = true)]
    curves: Vec<PathBuf>,
    /// Form of the law
    #[arg(long, value_parser = forms(), default_value_t = LawForm::Tokens)]
    form: LawForm,
    /// Columns of other tables that are not named so (those that are count by themselves): n_params=NAME,tokens=NAME,steps=NAME,compute=NAME,loss=NAME,run=NAME[+NAME]
    #[arg(long)]
    columns: Option<String>,
    /// Only rows in which a column has a value; may be given several times
    #[arg(long = "where", value_name = "COLUMN=VALUE")]
    conditions: Vec<String>,
    /// Only the last point of each run
    #[arg(long)]
    last_only: bool,
    /// Leave out this first share (from 0 to below 1) of each run, of the part that --stable-only keeps
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    skip: f64,
    /// Only points at the highest learning rate of their run
    #[arg(long)]
    stable_only: bool,
    /// Leave out so many points with the highest losses
    #[arg(long, default_value_t = 0)]
    drop_highest: usize,
    /// Instead of a law, fit the compute-optimal size N_opt(C) to runs of equal compute; computes within 3 % of each other are of one budget
    #[arg(long, conflicts_with_all = ["figure", "form", "bootstraps", "seed"])]
    isoflop: bool,
    /// Resamples for the 95 % intervals; 0 for none
    #[arg(long, default_value_t = 1000, value_parser = bootstraps)]
    bootstraps: usize,
    /// Seed of the resamples
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the law; its points go beside it [default: nowhere, the law is only printed]
    #[arg(short, long, value_name = "LAW.json")]
    out: Option<PathBuf>,
    /// Draw the points on the law and the residuals, as .svg or .png; needs --out
    #[arg(long, value_name = "FIGURE", requires = "out")]
    figure: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The forms by their names.
fn forms() -> impl TypedValueParser<Value = LawForm> {
    let told = |form: LawForm| {
        let words = match form {
            LawForm::FixedTokens => ", a as published: for few sizes",
            LawForm::MixedTokens => ": the mean of kaplan-tokens and fixed-tokens",
            _ => "",
        };
        PossibleValue::new(form.name()).help(format!("{}{words}", form.equation()))
    };
    PossibleValuesParser::new(LawForm::ALL.map(told)).try_map(|name| {
        let form = LawForm::ALL.into_iter().find(|form| form.name() == name);
        form.context("no such form")
    })
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err("must be at least 0 and below 1".into())
    }
}

/// Resamples of which one lies on each side of an interval.
const LEAST_BOOTSTRAPS: usize = 40;

fn bootstraps(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n == 0 || (LEAST_BOOTSTRAPS..=1_000_000).contains(&n) => Ok(n),
        _ => Err(format!(
            "must be a whole number from {LEAST_BOOTSTRAPS} to 1000000, or 0 for no intervals"
        )),
    }
}

impl Fit {
    pub fn run(self) -> Result<()> {
        let needs = if self.isoflop {
            (OF_BUDGETS, "optima of equal compute need".to_string())
        } else {
            (self.form.quantities(), format!("the form {} is a function of", self.form))
        };
        let source = Source {
            needs,
            files: self.curves.clone(),
            columns: self.columns.clone(),
            conditions: self.conditions.clone(),
            last_only: self.last_only,
            skip: self.skip,
            stable_only: self.stable_only,
            drop_highest: self.drop_highest,
        };
        if let Some(out) = &self.out {
            output::check_ending(out, "json", "a law")?;
        }
        let is_law: fn(&str) -> bool = is_law;
        let targets = |out: &PathBuf| [(out.clone(), is_law), (points_path(out), is_points as _)];
        for (target, is_own) in self.out.iter().flat_map(targets) {
            output::check_target(&target)?;
            let is_read = |file: &PathBuf| {
                output::is_same_file(file, &target)
                    || output::is_same_file(&RunFolder::curve_file(file), &target)
            };
            if self.curves.iter().any(is_read) {
                bail!(
                    "-o: {} is one of the files that are fitted; choose another name",
                    target.display()
                );
            }
            output::check_replaced(&target, is_own, "no law of staged fit, or no points of one")?;
        }
        if let Some(figure) = &self.figure {
            figures::check_target(figure)?;
        }
        let observations = source.read()?;
        if self.isoflop {
            return self.isoflop(&observations);
        }
        let options =
            FitOptions { form: self.form, n_bootstraps: self.bootstraps, seed: self.seed };
        let fitting = progress::Waiting::new("fitting the law and its resamples");
        let law = law_of(&observations, options).with_context(|| self.names());
        drop(fitting);
        let law = law?;
        if let Some(out) = &self.out {
            write(&law, &observations, out)?;
            if let Some(figure) = &self.figure {
                figures::write(&figures::fit_quality(&law, &points_path(out))?, figure)?;
            }
        }
        if self.json {
            return output::json(&law);
        }
        report(&law)?;
        if let Some(out) = &self.out {
            output::line(&format!(
                "law: {}, points: {}",
                out.display(),
                points_path(out).display()
            ))?;
            if let Some(figure) = &self.figure {
                output::line(&format!("figure: {}", figure.display()))?;
            }
        }
        Ok(())
    }

    /// The files that are fitted, in short.
    fn names(&self) -> String {
        let more = self.curves.len() - 1;
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        self.curves[0].display().to_string() + &others
    }

    fn isoflop(&self, observations: &Observations) -> Result<()> {
        let found = IsoFlop::new(&observations.points).with_context(|| self.names())?;
        if let Some(out) = &self.out {
            output::write_file(out, &(serde_json::to_string_pretty(&found)? + "\n"))?;
        }
        if self.json {
            return output::json(&found);
        }
        let one = found.exponent;
        let interval = match (one.low, one.high) {
            (Some(low), Some(high)) => format!(" [{low:.4}, {high:.4}]"),
            _ => String::new(),
        };
        output::line(&format!(
            "N_opt(C) = {:.4e} C^{:.4}{interval}, C in FLOPs, from {} budgets",
            found.factor,
            one.value,
            found.optima.len()
        ))?;
        for optimum in &found.optima {
            output::line(&format!(
                "  C {:.3e}  N_opt {:.3e}  loss {:.4}",
                optimum.compute, optimum.n_params, optimum.loss
            ))?;
        }
        for budget in &found.left_out {
            output::note(&format!("left out: {budget}"));
        }
        Ok(())
    }
}

/// What a row of equal compute tells.
const OF_BUDGETS: &[Quantity] = &[Quantity::Compute, Quantity::Params];

/// Share of each pilot run that is left out at its start: no law in N and D holds there.
const PILOT_SKIP: f64 = 0.25;

/// What a form may be off the ends of pilot runs, r.m.s., to be believed beyond them.
const GOOD_FIT: f64 = 0.01;

/// Fits L(N, D) to our own runs, to their ends or where their learning rate is at its peak. Of more than two sizes three forms
/// are fitted, and the one that predicts the largest size best from the smaller ones counts ([`LeftOut`](scaling::LeftOut)). Two sizes tell no form from another: beyond
/// small models Kaplan's tends to be too low and a sum too high (docs/SCALING.md), so it is the mean of both, if both go
/// through the points, else the one that is nearer to them.
pub fn fit_runs(runs: &[PathBuf], ends: bool, bootstraps: usize) -> Result<(Law, Observations)> {
    let source = Source {
        files: runs.to_vec(),
        needs: (&[], String::new()),
        columns: None,
        conditions: Vec::new(),
        last_only: ends,
        skip: PILOT_SKIP,
        stable_only: !ends,
        drop_highest: 0,
    };
    let observations = source.read()?;
    Ok((law_of_pilots(&observations, bootstraps)?, observations))
}

fn law_of_pilots(observations: &Observations, bootstraps: usize) -> Result<Law> {
    let fit = |form| law_of(observations, FitOptions { form, n_bootstraps: bootstraps, seed: 1 });
    let [mixed, kaplan, tokens] =
        [LawForm::MixedTokens, LawForm::KaplanTokens, LawForm::Tokens].map(fit);
    // A form that these runs do not fix leaves the others.
    let left_out = |law: &&Law| law.left_out.map(|found| found.mean_absolute_error);
    let judged = [&mixed, &kaplan, &tokens].into_iter().flatten();
    let judged = judged.filter_map(|law| Some((left_out(&law)?, law)));
    if let Some((_, best)) = judged.min_by(|a, b| a.0.total_cmp(&b.0)) {
        return Ok(best.clone());
    }
    let parts = [kaplan, fit(LawForm::FixedTokens)];
    let off = |law: &Law| law.residuals.root_mean_square;
    if parts.iter().all(|law| law.as_ref().is_ok_and(|law| off(law) < GOOD_FIT)) {
        return mixed;
    }
    let nearer = parts.into_iter().flatten().min_by(|a, b| off(a).total_cmp(&off(b)));
    nearer.map_or(mixed, Ok)
}

fn law_of(observations: &Observations, options: FitOptions) -> Result<Law> {
    let mut law = Law::new(&observations.points, options)?;
    law.batch_tokens = observations.batch_tokens;
    law.compute = observations.compute;
    law.recipe = observations.recipe;
    law.warnings.splice(0..0, observations.warnings.iter().cloned());
    Ok(law)
}

/// Writes a law, and its points beside it.
pub fn write(law: &Law, observations: &Observations, out: &Path) -> Result<()> {
    output::write_file(&points_path(out), &points_csv(law, observations))?;
    output::write_file(out, &(serde_json::to_string_pretty(law)? + "\n"))
}

/// Whether a file's text is a law, or an optimum by budgets.
fn is_law(text: &str) -> bool {
    let has = |value: &serde_json::Value, key: &str| value.get(key).is_some();
    serde_json::from_str::<serde_json::Value>(text)
        .is_ok_and(|value| has(&value, "law") && has(&value, "parameters") || has(&value, "optima"))
}

/// Whether a file's text is that of the points of a law.
fn is_points(text: &str) -> bool {
    text.starts_with("run,") && text.contains(",loss,predicted,")
}

/// Where a law's points are written: `law.json` has `law.points.csv`.
pub fn points_path(law: &Path) -> PathBuf {
    law.with_extension("points.csv")
}

fn points_csv(law: &Law, observations: &Observations) -> String {
    let quantities = law.law.quantities();
    let names: Vec<String> = quantities.iter().map(ToString::to_string).collect();
    let mut text = format!("run,{},loss,predicted,residual_ln\n", names.join(","));
    let fitted = law.fitted();
    for one in &observations.points {
        let values: Vec<f64> =
            quantities.iter().map(|quantity| one.quantity(*quantity).unwrap_or(f64::NAN)).collect();
        let predicted = fitted.loss_at(&values);
        let columns: Vec<String> = values.iter().map(|value| format!("{value:e}")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{predicted},{}",
            one.run,
            columns.join(","),
            one.loss,
            predicted.ln() - one.loss.ln()
        );
    }
    text
}

/// Prints a law.
pub fn report(law: &Law) -> Result<()> {
    output::line(&format!("{}, {} points of {} runs", law.equation, law.points, law.runs))?;
    for name in law.law.parameter_names() {
        let one = law.parameters.get(*name).with_context(|| format!("no parameter {name}"))?;
        let interval = match (one.low, one.high, one.standard_error) {
            (Some(low), Some(high), Some(error)) => {
                format!("  95 % [{}, {}]  s.e. {}", number(low), number(high), number(error))
            }
            _ => String::new(),
        };
        output::line(&format!("  {name:<4} {:>12}{interval}", number(one.value)))?;
    }
    output::line(&format!(
        "objective {:.10} (sum of Huber's loss of ln L, delta 1e-3), {} of {} starts agree; \
         plain L-BFGS: {}, {} of {} starts agree",
        law.objective,
        law.starts_agreeing,
        law.starts,
        law.cross_check.objective.map_or("none".to_string(), |found| format!("{found:.10}")),
        law.cross_check.starts_agreeing,
        law.cross_check.starts,
    ))?;
    let percent = |x: f64| 100.0 * x;
    let [low, lower, middle, upper, high] = law.residuals.quantiles.map(percent);
    output::line(&format!(
        "residuals in %: median {middle:.2}, half in [{lower:.2}, {upper:.2}], 95 % in [{low:.2}, {high:.2}]"
    ))?;
    if let Some(left_out) = law.left_out {
        output::line(&format!(
            "largest size, N = {:.3e}, predicted from the smaller ones{}: mean absolute error {:.2} % \
             (mean {:+.2} %), largest {:.2} %, at the ends of {} runs",
            left_out.n_params,
            left_out.form.map_or(String::new(), |form| format!(" by {form}")),
            percent(left_out.mean_absolute_error),
            percent(left_out.mean_error),
            percent(left_out.largest_error),
            left_out.runs,
        ))?;
    }
    if let Some(grown) = law.grown {
        let told = pace_and_saving(law).map(|(pace, saving)| {
            let unfit =
                if is_pace(pace) { "" } else { "; staged plan takes no such pace (--pace)" };
            format!(
                "pace {pace:.2}, {:.1} % of its compute from scratch saved{unfit}",
                percent(saving)
            )
        });
        output::line(&format!(
            "grown run ({}) from N = {:.3e} to {:.3e} after {:.3e} tokens: loss {:.4} after {:.3e} more, {}",
            grown.grew,
            grown.small,
            grown.large,
            grown.tokens_small,
            grown.loss,
            grown.tokens_large,
            told.unwrap_or_else(|| "pace unknown".into()),
        ))?;
    }
    law.warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    Ok(())
}

/// The pace after the growth of a law's grown run, and what that run saved of its compute from scratch.
pub fn pace_and_saving(law: &Law) -> Option<(f64, f64)> {
    let (grown, cost) = (law.grown?, law.cost()?);
    Some((grown.pace(&cost).ok()?, grown.saving(&cost).ok()?))
}

/// Four digits of a large or a small number.
fn number(x: f64) -> String {
    let size = x.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return format!("{x:.4e}");
    }
    let decimals = if size == 0.0 { 4 } else { (4 - size.log10().floor() as i32).clamp(0, 6) };
    format!("{x:.*}", decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scaling::Observation;

    /// Ends of sizes after three lengths each, under E + A / N^0.3478 + B / D^0.4 or with losses shifted.
    fn ends(sizes: &[f64], shift: impl Fn(usize) -> f64) -> Observations {
        let mut points = Vec::new();
        for n_params in sizes {
            for tokens in [2.8e6, 4.6e6, 7.7e6f64] {
                let loss = 1.0 + 16.0 * n_params.powf(-0.3478) + 120.0 * tokens.powf(-0.4);
                points.push(Observation {
                    n_params: Some(*n_params),
                    tokens: Some(tokens),
                    loss: loss + shift(points.len()),
                    run: points.len(),
                    ..Observation::default()
                });
            }
        }
        Observations { points, ..Observations::default() }
    }

    #[test]
    fn two_sizes_are_fitted_by_two_forms_where_both_go_through_them() {
        let form = |observations| law_of_pilots(&observations, 0).unwrap().law;
        assert_eq!(form(ends(&[5e4, 2e5], |_| 0.0)), LawForm::MixedTokens);
        // An end far off every form.
        let off = |i| if i == 2 { 0.4 } else { 0.0 };
        assert_ne!(form(ends(&[5e4, 2e5], off)), LawForm::MixedTokens);
        // Three smaller sizes tell which form made the largest one.
        let law = law_of_pilots(&ends(&[1e4, 5e4, 2e5, 8e5], |_| 0.0), 0).unwrap();
        assert_eq!(law.law, LawForm::Tokens);
        assert!(law.left_out.unwrap().largest_error < 1e-3);
    }
}
