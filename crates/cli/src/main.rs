//! `staged`: staged training of transformer language models.

mod allocator;
mod bench;
mod bench_fit;
mod bench_growth;
mod checkpoint;
mod compare;
mod comparison;
mod data;
mod demo;
mod eval;
mod export;
mod figures;
mod fit;
mod grow;
mod import;
mod law;
mod measured;
mod observations;
mod output;
mod panics;
mod pilot;
mod plan;
mod plan_report;
mod plan_warnings;
mod plot;
mod progress;
mod recipe;
mod report;
mod run_figure;
mod run_record;
mod sample;
mod shapes;
mod side_by_side;
mod sweep;
mod table;
mod train;

use anyhow::bail;
use clap::error::ContextKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::error::Error;
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};
use std::process::ExitCode;

/// Bad input, and anything else that keeps a command from its result.
const EXIT_ERROR: u8 = 2;

#[derive(Parser)]
#[command(
    name = "staged",
    version,
    about = "Staged training of transformer language models: train a small model, grow it, train on",
    after_help = "Try it: staged demo"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all steps on a small model: pilot runs, law, plan, staged run, baseline, saving
    Demo(demo::Demo),
    /// Fit a scaling law to measured losses
    Fit(fit::Fit),
    /// Find the best peak learning rate of training from scratch
    Sweep(sweep::Sweep),
    /// Train small pilot runs and fit a scaling law to them
    Pilot(pilot::Pilot),
    /// Plan a staged run for a budget, a loss or a shape
    Plan(Box<plan::Plan>),
    /// Run a schedule
    Train(train::Train),
    /// Measure what staged runs save compared with runs from scratch
    Compare(compare::Compare),
    /// Grow a checkpoint to a larger model
    Grow(Box<grow::Grow>),
    /// Draw a schedule, a fitted law or measured curves
    Plot(plot::Plot),
    /// Write a staged run up as one HTML file, against its baseline
    Report(report::Report),
    /// Measure a checkpoint's held-out loss
    Eval(eval::Eval),
    /// Draw text from a checkpoint
    Sample(sample::Sample),
    /// Write a checkpoint's model for Hugging Face's transformers
    Export(export::Export),
    /// Read a GPT-2 of Hugging Face's transformers as a checkpoint, to grow and to train on
    Import(import::Import),
    /// Measure the speed of a training step, the intervals of fits, or how losses fall after growths
    Bench(bench::Bench),
    /// Turn text into token files, and look into them
    Data(data::Data),
}

/// What was asked for. A number below zero is a value that an option refuses, and no other option.
fn arguments() -> Arguments {
    fn with_negative_numbers(command: clap::Command) -> clap::Command {
        command.allow_negative_numbers(true).mut_subcommands(with_negative_numbers)
    }
    let matches = with_negative_numbers(Arguments::command()).try_get_matches();
    let found = matches.and_then(|matches| Arguments::from_arg_matches(&matches));
    found.unwrap_or_else(|error| in_words(error).exit())
}

/// An error with what would be right where a library says of a number only what it is not.
fn in_words(error: clap::Error) -> clap::Error {
    let Some(due) = error.source().and_then(due) else { return error };
    let told = |kind| error.get(kind).map_or(String::new(), ToString::to_string);
    let [value, option] = [ContextKind::InvalidValue, ContextKind::InvalidArg].map(told);
    clap::Error::raw(error.kind(), format!("invalid value '{value}' for '{option}': {due}\n"))
}

/// What a number must be that was refused for this.
fn due(source: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = source.downcast_ref::<ParseIntError>() {
        return Some(match error.kind() {
            IntErrorKind::PosOverflow => "is too large".to_string(),
            _ => "must be a whole number, and not negative".to_string(),
        });
    }
    if source.is::<ParseFloatError>() {
        return Some("must be a number".to_string());
    }
    let text = source.to_string();
    let (least, most) = text.split_once(" is not in ")?.1.split_once("..")?;
    // An open range has the type's greatest number behind it.
    if most.is_empty() || most == u64::MAX.to_string() {
        return Some(format!("must be at least {least}"));
    }
    Some(format!("must be from {least} to {}", most.strip_prefix('=')?))
}

/// Errs for a name that JSON cannot hold, before anything is done.
fn check_names_for_json() -> anyhow::Result<()> {
    let words: Vec<_> = std::env::args_os().collect();
    let is_json = words.iter().any(|word| word == "--json");
    match words.iter().find(|word| is_json && word.to_str().is_none()) {
        Some(word) => bail!("--json: the name {} must be UTF-8", word.display()),
        None => Ok(()),
    }
}

fn main() -> ExitCode {
    allocator::keep_memory();
    let command = arguments().command;
    let result = panics::as_errors(|| check_names_for_json().and_then(|()| run(command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(demo) => demo.run(),
        Command::Fit(fit) => fit.run(),
        Command::Sweep(sweep) => sweep.run(),
        Command::Pilot(pilot) => pilot.run(),
        Command::Plan(plan) => plan.run(),
        Command::Train(train) => train.run(),
        Command::Compare(compare) => compare.run(),
        Command::Grow(grow) => grow.run(),
        Command::Plot(plot) => plot.run(),
        Command::Report(report) => report.run(),
        Command::Eval(eval) => eval.run(),
        Command::Sample(sample) => sample.run(),
        Command::Export(export) => export.run(),
        Command::Import(import) => import.run(),
        Command::Bench(bench) => bench.run(),
        Command::Data(data) => data.run(),
    }
}
