//! Measured losses from tables that are no `metrics.csv`.

use super::{Observations, Source, next_run};
use crate::table::Table;
use anyhow::{Context, Result, bail};
use scaling::Observation;
use std::collections::HashMap;

/// The columns of a table by what they hold.
struct Columns {
    by_name: HashMap<&'static str, usize>,
    /// Those of them that were named on the command line.
    named: Vec<&'static str>,
    run: Vec<usize>,
}

const NAMES: [&str; 5] = ["n_params", "tokens", "steps", "compute", "loss"];

impl Source {
    pub(super) fn read_table(
        &self,
        table: &Table,
        found: &mut Observations,
        batches: &mut Vec<f64>,
    ) -> Result<()> {
        let name = &table.name;
        let columns = self.table_columns(table)?;
        let conditions = self.table_conditions(table)?;
        let of_runs = [
            (self.last_only, "--last-only".to_string()),
            (self.skip > 0.0, format!("--skip {}", self.skip)),
        ];
        if columns.run.is_empty()
            && let Some((_, option)) = of_runs.iter().find(|(given, _)| *given)
        {
            bail!(
                "{option}: {name}: no column says which rows are of one run; add run=COLUMN to --columns"
            );
        }
        if self.stable_only {
            bail!(
                "--stable-only: {name} is no metrics.csv of a run, which alone tells the learning rate"
            );
        }
        let first_run = next_run(&found.points);
        let mut runs: HashMap<String, usize> = HashMap::new();
        for (i, row) in table.rows().enumerate() {
            if conditions.iter().any(|(column, value)| !is_same_value(row.text(*column), value)) {
                continue;
            }
            let number = |key: &str| -> Result<Option<f64>> {
                let Some(column) = columns.by_name.get(key) else { return Ok(None) };
                // A form may use some columns only, and what nobody asked for may hold anything.
                let is_asked_for = columns.named.contains(&key) || self.is_needed(key);
                if !is_asked_for || row.text(*column).is_empty() && key != "loss" {
                    return Ok(row.positive(*column).ok());
                }
                row.positive(*column).map(Some)
            };
            let key = if columns.run.is_empty() {
                i.to_string()
            } else {
                let parts = columns.run.iter().map(|column| row.text(*column));
                parts.collect::<Vec<_>>().join("\u{1f}")
            };
            let next = first_run + runs.len();
            let (tokens, steps) = (number("tokens")?, number("steps")?);
            // Of no common batch where one is not told.
            batches.push(tokens.zip(steps).map_or(f64::NAN, |(tokens, steps)| tokens / steps));
            let point = Observation {
                n_params: number("n_params")?,
                tokens,
                steps,
                compute: number("compute")?,
                loss: number("loss")?.unwrap_or(f64::NAN),
                run: *runs.entry(key).or_insert(next),
            };
            if let Some(untold) = self.untold(&point) {
                bail!("{}: {untold}", row.line());
            }
            found.points.push(point);
        }
        if runs.is_empty() && conditions.is_empty() {
            bail!("{name}: no rows");
        }
        if runs.is_empty() {
            bail!("{name}: no row meets --where {}", self.conditions.join(" --where "));
        }
        Ok(())
    }

    fn is_needed(&self, key: &str) -> bool {
        key == "loss" || self.needs.0.iter().any(|quantity| quantity.to_string() == key)
    }

    /// What a point does not tell.
    fn untold(&self, point: &Observation) -> Option<String> {
        let (quantities, needed_by) = &self.needs;
        let untold = quantities.iter().find(|quantity| point.quantity(**quantity).is_none())?;
        Some(format!("no {untold}, which {needed_by}"))
    }

    fn table_columns(&self, table: &Table) -> Result<Columns> {
        let mut columns = Columns { by_name: HashMap::new(), named: Vec::new(), run: Vec::new() };
        for key in NAMES {
            columns.by_name.extend(table.find(key)?.map(|place| (key, place)));
        }
        columns.run.extend(table.find("run")?);
        let mut named = HashMap::new();
        for pair in self.columns.iter().flat_map(|pairs| pairs.split(',')) {
            let (key, column) = pair
                .split_once('=')
                .with_context(|| format!("--columns: {pair:?}: must be NAME=COLUMN"))?;
            if let Some(other) = named.insert(key, column) {
                bail!("--columns: {key}={other} and {key}={column}: must be one of them");
            }
            if key == "run" {
                columns.run =
                    column.split('+').map(|one| table.column(one)).collect::<Result<_>>()?;
                continue;
            }
            let known = NAMES.into_iter().find(|known| *known == key);
            let known = known.with_context(|| {
                format!("--columns: {key:?}: must be one of {}, run", NAMES.join(", "))
            })?;
            let place = table.column(column)?;
            // A column that is named is what it is named, whatever stands over it.
            columns.by_name.retain(|key, at| *at != place || columns.named.contains(key));
            columns.by_name.insert(known, place);
            columns.named.push(known);
        }
        let by_name = |key: &str| columns.by_name.get(key);
        for (i, key) in NAMES.iter().enumerate() {
            let twin = NAMES[..i]
                .iter()
                .find(|one| by_name(key).is_some() && by_name(one) == by_name(key));
            if let Some(twin) = twin {
                bail!("--columns: {twin} and {key} are the same column of {}", table.name);
            }
        }
        let told = |key: &str| by_name(key).map(|_| 1.0);
        let point = Observation {
            n_params: told("n_params"),
            tokens: told("tokens"),
            steps: told("steps"),
            compute: told("compute"),
            ..Observation::default()
        };
        let untold = self.untold(&point);
        let no_loss = || by_name("loss").is_none().then(|| "no column named loss".to_string());
        if let Some(untold) = no_loss().or(untold) {
            bail!(
                "{}: {untold}; it has {}. Name columns that are named otherwise: --columns n_params=...,tokens=...,loss=...",
                table.name,
                table.columns()
            );
        }
        Ok(columns)
    }

    fn table_conditions(&self, table: &Table) -> Result<Vec<(usize, String)>> {
        let condition = |text: &String| {
            let (column, value) = text
                .split_once('=')
                .with_context(|| format!("--where {text:?}: must be COLUMN=VALUE"))?;
            let place = table.column(column).with_context(|| format!("--where {text}"))?;
            Ok((place, value.to_string()))
        };
        self.conditions.iter().map(condition).collect()
    }
}

/// Whether a cell holds a value: the same text, or the same number.
fn is_same_value(cell: &str, value: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    cell == value || number(cell).is_some_and(|found| number(value) == Some(found))
}
