use crate::compare::sides;
use crate::comparison::{BEFORE_LAST_GROWTH, Comparison, Sides};
use crate::output::percent;
use crate::run_figure::predicted_against_actual;
use crate::{compare, figures, output};
use anyhow::{Context, Result};
use clap::Args;
use measure::{Flops, PfDays};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use trainer::RunFolder;

/// Arguments of `staged report`.
#[derive(Args)]
#[command(
    override_usage = "staged report <RUN> [BASELINE]... [OPTIONS]",
    after_help = "Example: staged report runs/staged runs/scratch -o report.html"
)]
pub struct Report {
    /// The run, or a folder of one schedule's runs under several seeds
    run: PathBuf,
    /// Runs of its last shape from scratch, or folders of such runs
    #[arg(value_name = "BASELINE")]
    baselines: Vec<PathBuf>,
    /// Runs of earlier shapes from scratch, for the dynamics ratios of growths into them; from a folder, such as that of pilot
    /// runs, those of such shapes at a constant rate are taken
    #[arg(long, num_args = 1.., value_name = "RUN", requires = "baselines")]
    others: Vec<PathBuf>,
    /// Pilot runs whose compute is counted, instead of those that the plan names
    #[arg(long, num_args = 1.., value_name = "RUN", requires = "baselines")]
    pilots: Vec<PathBuf>,
    /// Where to write it [default: RUN/report.html]
    #[arg(short, long, value_name = "REPORT.html")]
    out: Option<PathBuf>,
}

impl Report {
    pub fn run(self) -> Result<()> {
        let out = self.out.unwrap_or_else(|| self.run.join("report.html"));
        output::check_target(&out)?;
        output::check_ending(&out, "html", "a report")?;
        // Reports of earlier builds have the style alone.
        let is_report = |text: &str| text.contains(GENERATOR) || text.contains(STYLE);
        output::check_replaced(&out, is_report, "no report of staged")?;
        let sides = sides(&self.run, &self.baselines, &self.others, &self.pilots)?;
        write(&sides, &out)?;
        output::line(&format!("report: {}", out.display()))
    }
}

/// Writes a report that needs no other file and no network.
pub fn write(sides: &Sides, out: &Path) -> Result<()> {
    let comparison = sides.compare(&[])?;
    output::write_file(out, &html(sides, &comparison)?)
}

/// Marks a page as one that may be written again.
const GENERATOR: &str = "<meta name=\"generator\" content=\"staged\">";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}\
    h1,h2{line-height:1.2}table{border-collapse:collapse;margin:1em 0}\
    th,td{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:right}\
    th:first-child,td:first-child{text-align:left}th{border-bottom:2px solid #888}\
    svg{max-width:100%;height:auto}pre{background:#f5f5f5;padding:1em;overflow:auto}\
    .number{font-size:1.6em;font-weight:bold}";

fn html(sides: &Sides, found: &Comparison) -> Result<String> {
    let first = &sides.staged[0];
    let mut page = String::new();
    let title = escaped(first.schedule.name());
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">{GENERATOR}<title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n{}{}",
        summary(sides, found),
        notes(found)
    );
    let with_baseline = (!sides.scratch.is_empty()).then_some(found);
    let figure = predicted_against_actual(&sides.staged, &sides.scratch, with_baseline);
    let _ = writeln!(
        page,
        "<h2>Loss</h2>\n{}",
        figure.svg().with_context(|| first.folder.display().to_string())?
    );
    if !sides.scratch.is_empty() {
        let _ = writeln!(page, "<h2>Saving at equal loss</h2>\n{}", savings(found));
    }
    let _ = writeln!(page, "<h2>Stages</h2>\n{}", stages(found));
    if !found.growths.is_empty() {
        let _ = writeln!(page, "<h2>Growths</h2>\n{}", growths(sides, found));
    }
    let _ = writeln!(
        page,
        "<h2>Schedule</h2>\n{}\n<details><summary>schedule.toml</summary><pre>{}</pre></details>",
        figures::course(&first.schedule)?.svg()?,
        escaped(&first.schedule.to_toml())
    );
    let _ = writeln!(page, "<h2>How it was made</h2>\n{}\n</body></html>", provenance(sides));
    Ok(page)
}

fn summary(sides: &Sides, found: &Comparison) -> String {
    let mut text = String::new();
    if let (Some(last), false) = (found.savings.last(), sides.scratch.is_empty()) {
        let over_seeds =
            if last.found.low.is_some() { "95 % interval over the seeds " } else { "" };
        let interval = found.interval_of(last);
        let what = if last.found.saving < 0.0 {
            "of the compute saved (negative: more was spent)"
        } else {
            "of the compute saved"
        };
        let exact = last
            .saving_exact
            .map(|exact| format!("{} with attention and the output head counted", percent(exact)));
        let with_pilots = (found.pilot_compute > 0.0)
            .then(|| format!("{} with the pilot runs counted", found.with_pilots(last)));
        let counted: Vec<String> = exact.into_iter().chain(with_pilots).collect();
        let counted =
            if counted.is_empty() { String::new() } else { format!("; {}", counted.join(", ")) };
        let _ = writeln!(
            text,
            "<p><span class=\"number\">{}</span> {what} at loss {:.4}{}, against the same shape from scratch, \
             {over_seeds}{interval}{counted}.</p>",
            percent(last.found.saving),
            last.found.loss,
            if last.before_last_growth { BEFORE_LAST_GROWTH } else { "" },
        );
    }
    let predicted = found
        .predicted_saving
        .map(|saving| format!("The plan predicted a saving of {}.", percent(saving)));
    let advice = sides.staged[0].schedule.prediction().and_then(|plan| plan.advice.as_ref());
    let advice = advice.map(|advice| format!("It advised: {}.", escaped(advice)));
    // Beside savings they are told in any case.
    let are_untold = found.pilot_compute > 0.0 && found.savings.is_empty();
    let pilots = are_untold.then(|| format!("The pilot runs took {}.", found.pilots()));
    let planned: Vec<String> = predicted.into_iter().chain(advice).chain(pilots).collect();
    if !planned.is_empty() {
        let _ = writeln!(text, "<p>{}</p>", planned.join(" "));
    }
    if let Some(stage) = found.stages.last() {
        let predicted = stage.predicted_loss.map_or(String::new(), |loss| {
            format!(", predicted {loss:.4} ({:+.2} %)", 100.0 * (loss / stage.actual_loss - 1.0))
        });
        let _ = writeln!(
            text,
            "<p>{} held-out loss{} {:.4} nats per token{predicted}, after {} ({}).</p>",
            if stage.is_over { "Final" } else { "Not at its end:" },
            if found.decays { "" } else { ", smoothed," },
            stage.actual_loss,
            Flops(stage.compute),
            PfDays::from(Flops(stage.compute)),
        );
    }
    text
}

/// What is to be known beside the numbers.
fn notes(found: &Comparison) -> String {
    let paragraphs: Vec<String> =
        found.notes.iter().map(|note| format!("<p>Note: {}.</p>\n", escaped(note))).collect();
    paragraphs.concat()
}

fn savings(found: &Comparison) -> String {
    if let Some(why) = &found.no_saving {
        let least = found.at_least.map_or(String::new(), |least| format!(" But {}.", least.text()));
        return format!("<p>No saving can be computed: {}.{}</p>", escaped(why), escaped(&least));
    }
    let rows = found.savings.iter().map(|one| {
        let interval = found.interval_of(one);
        vec![
            one.at.clone(),
            format!("{:.4}", one.found.loss),
            percent(one.found.saving),
            interval,
            found.with_pilots(one),
            one.saving_exact.map_or("-".to_string(), percent),
            format!("{:.3e}", one.found.compute),
            format!("{:.3e}", one.found.compute_from_scratch),
        ]
    });
    let text = format!(
        "<p>1 - C_staged(L) / C_scratch(L), with C = 6 N D over all stages, evaluations excluded on both sides. {}; {} \
         staged, {} from scratch. Pilot runs: {}.</p>",
        if found.decays {
            "Only the ends of runs are compared, since the learning rate decays"
        } else {
            "Curves are smoothed"
        },
        compare::runs(found.runs, &found.seeds),
        compare::runs(found.baselines, &found.baseline_seeds),
        found.pilots(),
    );
    let head = [
        "at",
        "loss",
        "saving",
        "95 %",
        "with pilots",
        "attention and head counted too",
        "6 N D",
        "from scratch",
    ];
    text + &table(&head, rows)
}

fn stages(found: &Comparison) -> String {
    let rows = found.stages.iter().map(|stage| {
        vec![
            format!("{}: {}", stage.stage + 1, stage.shape),
            output::count(stage.n_params),
            format!("{:.0}{}", stage.step, if stage.is_over { "" } else { ", under way" }),
            format!("{:.3e}", stage.compute),
            stage.predicted_loss.map_or("-".into(), |loss| format!("{loss:.4}")),
            format!("{:.4}", stage.actual_loss),
            stage.largest_error.map_or("-".into(), |error| format!("{:.2} %", 100.0 * error)),
        ]
    });
    let head = [
        "stage (layers x width x heads)",
        "N",
        "steps at its end",
        "FLOPs",
        "predicted loss",
        "actual loss",
        "largest error, last half or end",
    ];
    table(&head, rows)
}

fn growths(sides: &Sides, found: &Comparison) -> String {
    let rows = found.growths.iter().map(|growth| {
        let checks = sides.staged.iter().filter_map(|run| run.growths.get(growth.stage - 1));
        let moved = checks.map(|report| report.check.max_abs_delta_logit).reduce(f64::max);
        vec![
            format!("into {}: {}", growth.stage + 1, growth.operator),
            format!("{:.0}", growth.step),
            format!("{:.6}", growth.loss_before),
            format!("{:.6}", growth.loss_after),
            moved.map_or("-".into(), |moved| format!("{moved:.1e}")),
            growth.ratio_over_seeds().unwrap_or("-".into()),
        ]
    });
    let head =
        ["growth", "step", "loss before", "after", "largest change of a logit", "dynamics ratio"];
    let tokens = found.growths.first().map_or(0, |growth| growth.check_tokens);
    let text = format!(
        "<p>Losses before and after are over {} held-out tokens. Dynamics ratio: fall of the loss after the growth over that of the grown \
         size from scratch at the same loss; 1 is kept, more is better.</p>",
        output::count(tokens)
    );
    text + &table(&head, rows)
}

/// What the runs' records say of program, machine and command.
fn provenance(sides: &Sides) -> String {
    let mut rows = Vec::new();
    for run in sides.staged.iter().chain(&sides.scratch) {
        let path = RunFolder::events_of(&run.folder);
        // A run goes on without it, and is reported without it.
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let started = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["event"] == "started");
        let word = |event: &Value, key: &str| match &event[key] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_string(),
            other => other.to_string(),
        };
        let last = run.curve.points.last();
        let begun = rows.len();
        for event in started {
            rows.push(vec![
                run.folder.display().to_string(),
                run.schedule.seed().to_string(),
                word(&event, "command"),
                word(&event, "versions"),
                format!(
                    "{}, {}, {}",
                    word(&event, "machine"),
                    word(&event, "device"),
                    event["threads"]
                        .as_u64()
                        .map_or("-".into(), |threads| output::counted(threads, "thread")),
                ),
                // That of the whole run, where it was begun for the last time.
                String::new(),
            ]);
        }
        if rows.len() == begun {
            let unknown = format!("{} tells no start", path.display());
            let (folder, seed) =
                (run.folder.display().to_string(), run.schedule.seed().to_string());
            rows.push(vec![folder, seed, unknown, "-".into(), "-".into(), String::new()]);
        }
        if let (Some(row), Some(point)) = (rows[begun..].last_mut(), last) {
            row[5] = output::duration(point.wall_seconds);
        }
    }
    table(&["run", "seed", "command", "versions", "machine", "time"], rows.into_iter())
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |cells: Vec<String>, tag: &str| -> String {
        let cell = |text: &String| format!("<{tag}>{}</{tag}>", escaped(text));
        format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>())
    };
    let head = cells(head.iter().map(ToString::to_string).collect(), "th");
    let body: String = rows.map(|row| cells(row, "td")).collect();
    format!("<table><thead>{head}</thead><tbody>{body}</tbody></table>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
