//! Tables of comma-separated values whose first line names the columns.

use anyhow::{Context, Result, bail};
use csv::StringRecord;
use std::path::Path;

/// A table as it was read.
pub struct Table {
    /// The file.
    pub name: String,
    header: StringRecord,
    rows: Vec<StringRecord>,
}

impl Table {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_path(path)
            .with_context(|| format!("{name} cannot be read"))?;
        let header = reader.headers().with_context(|| name.clone())?.clone();
        if header.iter().all(str::is_empty) {
            bail!("{name}: is empty; its first line must name the columns");
        }
        let rows = reader.records().collect::<Result<_, _>>().with_context(|| name.clone())?;
        Ok(Self { name, header, rows })
    }

    /// Where a column is, if there is one of that name. Errs where there are two.
    pub fn find(&self, column: &str) -> Result<Option<usize>> {
        let mut places = self.header.iter().enumerate().filter(|(_, name)| *name == column);
        let found = places.next().map(|(place, _)| place);
        if let (Some(first), Some((second, _))) = (found, places.next()) {
            bail!(
                "{}: two columns are named {column:?}, numbers {} and {}; rename one",
                self.name,
                first + 1,
                second + 1
            );
        }
        Ok(found)
    }

    /// Where a column is that must be there.
    pub fn column(&self, column: &str) -> Result<usize> {
        self.find(column)?.with_context(|| {
            format!("{}: no column {column:?}; it has {}", self.name, self.columns())
        })
    }

    /// The names of its columns.
    pub fn columns(&self) -> String {
        self.header.iter().collect::<Vec<_>>().join(", ")
    }

    /// Its rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|record| Row { table: self, record })
    }
}

/// A row of a table.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    table: &'a Table,
    record: &'a StringRecord,
}

impl<'a> Row<'a> {
    /// What stands in a column, without blanks around it.
    pub fn text(self, column: usize) -> &'a str {
        self.record.get(column).unwrap_or("")
    }

    /// The number in a column.
    pub fn number(self, column: usize) -> Result<f64> {
        let number = self.text(column).parse().ok();
        number.with_context(|| {
            format!("{} = {:?}: not a number", self.place(column), self.text(column))
        })
    }

    /// The number in a column, which must be one of a law's quantities.
    pub fn positive(self, column: usize) -> Result<f64> {
        let number = self.number(column)?;
        let fits = (number > 0.0 && number.is_finite()).then_some(number);
        fits.with_context(|| {
            format!("{} = {}: must be positive and finite", self.place(column), self.text(column))
        })
    }

    /// File and line, to begin an error with.
    pub fn line(self) -> String {
        let line = self.record.position().map_or(0, csv::Position::line);
        format!("{}: line {line}", self.table.name)
    }

    /// File, line and column.
    fn place(self, column: usize) -> String {
        format!("{}: {}", self.line(), self.table.header.get(column).unwrap_or(""))
    }
}
