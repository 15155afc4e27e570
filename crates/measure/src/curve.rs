use crate::whole_file::write_whole;
use csv::{DeserializeErrorKind, StringRecord};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// One row of `metrics.csv`: a training step, and the held-out loss where it was evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Stage, from 0.
    pub stage: usize,
    /// Optimizer steps made, over all stages.
    pub step: u64,
    /// Tokens trained on, over all stages.
    pub tokens: u64,
    /// 6 N per token, summed over all stages, and what growths spent on estimating moments anew, FLOPs.
    pub compute_flops: f64,
    /// Mean cross-entropy of the step's batch before the update, nats per token.
    pub train_loss: f64,
    /// Mean cross-entropy of the fixed evaluation set after the update, nats per token.
    pub val_loss: Option<f64>,
    /// Learning rate of the step, before any factor for a parameter's role.
    pub learning_rate: f64,
    /// Euclidean norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// Tokens of this step over its wall-clock time.
    pub tokens_per_second: f64,
    /// Wall-clock time of the whole run so far.
    pub wall_seconds: f64,
}

/// A run's record: its points in the order of their steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearningCurve {
    /// Points, in the order of their steps.
    pub points: Vec<CurvePoint>,
}

/// A curve that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CurveError {
    /// The file cannot be opened, read or written.
    #[error("{path}: {cause}")]
    Io {
        /// File.
        path: PathBuf,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// A row is not a curve point.
    #[error("{path}: row {row}: {reason}")]
    Row {
        /// File.
        path: PathBuf,
        /// Row, the header being row 1.
        row: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A curve that lacks its last points.
    #[error("{path}: ends before step {step}, where the checkpoint stands: it was cut or edited")]
    Cut {
        /// File.
        path: PathBuf,
        /// The step that its last row must have.
        step: u64,
    },
    /// A point that no curve has.
    #[error("point {point}: compute {compute}, loss {loss}: both must be positive and finite")]
    Point {
        /// The point, from 1.
        point: usize,
        /// FLOPs.
        compute: f64,
        /// Nats per token.
        loss: f64,
    },
    /// Too few points for a smooth curve.
    #[error("{n_points} points at different compute: at least 4 are needed for a curve")]
    TooShort {
        /// Points at different compute.
        n_points: usize,
    },
}

/// Most steps of a run that can be planned or written down.
pub const MOST_STEPS: u64 = 1_000_000_000_000;

impl CurvePoint {
    /// N of a run that has had one size so far: its compute, 6 N D, over 6 D.
    pub fn n_params(&self) -> f64 {
        self.compute_flops / (6.0 * self.tokens as f64)
    }

    /// Whether its step was made at a learning rate, or a higher one.
    pub fn is_at_rate(&self, rate: f64) -> bool {
        self.learning_rate >= rate * (1.0 - 1e-9)
    }

    /// Errs unless it can stand in a curve.
    fn check(&self) -> Result<(), String> {
        for (column, counted) in [("step", self.step), ("tokens", self.tokens)] {
            if counted == 0 {
                return Err(format!("{column} = 0: must be at least 1"));
            }
        }
        let flops = self.compute_flops;
        if !(flops > 0.0 && flops.is_finite()) {
            return Err(format!("compute_flops = {flops}: must be positive and finite"));
        }
        let amounts = [
            ("train_loss", self.train_loss),
            ("learning_rate", self.learning_rate),
            ("grad_norm", self.grad_norm),
            ("tokens_per_second", self.tokens_per_second),
            ("wall_seconds", self.wall_seconds),
        ];
        let mut amounts = amounts.into_iter().chain(self.val_loss.map(|loss| ("val_loss", loss)));
        match amounts.find(|(_, is)| !(*is >= 0.0 && is.is_finite())) {
            Some((column, is)) => Err(format!("{column} = {is}: must be finite and not negative")),
            None => Ok(()),
        }
    }

    /// Errs unless it can follow another one of its run.
    fn check_after(&self, before: &Self) -> Result<(), String> {
        if self.stage < before.stage {
            let (here, there) = (self.stage, before.stage);
            return Err(format!(
                "stage = {here}: must be at least {there}, that of the row before"
            ));
        }
        let amounts = [
            ("step", self.step as f64, before.step as f64),
            ("tokens", self.tokens as f64, before.tokens as f64),
            ("compute_flops", self.compute_flops, before.compute_flops),
        ];
        match amounts.into_iter().find(|(_, here, there)| here <= there) {
            Some((column, here, there)) => {
                Err(format!("{column} = {here}: must be above {there}, that of the row before"))
            }
            None => Ok(()),
        }
    }
}

impl LearningCurve {
    /// Reads the rows of a `metrics.csv` up to a step, one for each step from the first on; what follows is not looked at, and before
    /// the first step there may be no file.
    ///
    /// # Errors
    /// An unreadable file, a row that is not a curve point of the next step, or none of the last one.
    pub fn read_steps(path: &Path, last_step: u64) -> Result<Self, CurveError> {
        let text = if path.exists() { read_text(path)? } else { Vec::new() };
        let mut rows = rows(path, &text)?;
        let mut points = Vec::new();
        for due in 1..=last_step {
            let Some((row, point)) = rows.next() else {
                return Err(CurveError::Cut { path: path.to_path_buf(), step: last_step });
            };
            let point = point?;
            if point.step != due {
                return Err(broken(path, row, format!("step = {}: must be {due}", point.step)));
            }
            points.push(point);
        }
        Ok(Self { points })
    }

    /// Reads a whole `metrics.csv`. A last row without its end that is no point was being written when the run died, and is passed over.
    ///
    /// # Errors
    /// An unreadable file, or a row that is not a curve point.
    pub fn read(path: &Path) -> Result<Self, CurveError> {
        let text = read_text(path)?;
        let mut points = Vec::new();
        for (_, point) in rows(path, &text)? {
            points.push(point?);
        }
        Ok(Self { points })
    }

    /// 6 N D of all its steps, FLOPs.
    pub fn compute(&self) -> f64 {
        self.points.last().map_or(0.0, |point| point.compute_flops)
    }

    /// The highest learning rate of its steps.
    pub fn peak_rate(&self) -> f64 {
        self.points.iter().map(|point| point.learning_rate).fold(0.0, f64::max)
    }

    /// The points that carry a held-out loss.
    pub fn evaluated(&self) -> impl Iterator<Item = (&CurvePoint, f64)> {
        self.points.iter().filter_map(|point| point.val_loss.map(|loss| (point, loss)))
    }
}

/// Appends points to a `metrics.csv`; every point is on disk, as the system sees it, when
/// [`CurveWriter::append`] returns.
pub struct CurveWriter {
    path: PathBuf,
    file: File,
}

impl CurveWriter {
    /// Continues a file after `last_step`: keeps the rows up to it and drops what follows, a torn
    /// last row included. Where no step is made yet, starts one.
    ///
    /// # Errors
    /// The file cannot be read or written, a row to keep is broken, or the row of `last_step` is missing; the file is as it was then.
    pub fn resume(path: &Path, last_step: u64) -> Result<(Self, LearningCurve), CurveError> {
        let kept = LearningCurve::read_steps(path, last_step)?;
        Ok((Self::with_rows(path, &kept.points)?, kept))
    }

    /// Appends one point.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, point: &CurvePoint) -> Result<(), CurveError> {
        let row = encode(std::slice::from_ref(point), false);
        self.file.write_all(&row).map_err(|cause| self.io(cause))
    }

    /// Forces the rows to the disk itself.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&mut self) -> Result<(), CurveError> {
        self.file.sync_data().map_err(|cause| self.io(cause))
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(path: &Path, rows: &[CurvePoint]) -> Result<(), CurveError> {
        Self::with_rows(path, rows).map(|_| ())
    }

    fn with_rows(path: &Path, rows: &[CurvePoint]) -> Result<Self, CurveError> {
        let io = |cause| CurveError::Io { path: path.to_path_buf(), cause };
        write_whole(path, &encode(rows, true)).map_err(io)?;
        let file = File::options().append(true).open(path).map_err(io)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    fn io(&self, cause: std::io::Error) -> CurveError {
        CurveError::Io { path: self.path.clone(), cause }
    }
}

fn read_text(path: &Path) -> Result<Vec<u8>, CurveError> {
    std::fs::read(path).map_err(|cause| CurveError::Io { path: path.to_path_buf(), cause })
}

fn broken(path: &Path, row: usize, reason: String) -> CurveError {
    CurveError::Row { path: path.to_path_buf(), row, reason }
}

/// The points of a `metrics.csv` with the numbers of their rows, as they are asked for; without a last row that was being written when
/// the run died.
fn rows<'a>(
    path: &'a Path,
    text: &'a [u8],
) -> Result<impl Iterator<Item = (usize, Result<CurvePoint, CurveError>)> + 'a, CurveError> {
    let mut rows = csv::Reader::from_reader(text);
    let header = rows.headers().map_err(|error| broken(path, 1, error.to_string()))?.clone();
    let is_torn = !text.ends_with(b"\n");
    let mut records = rows.into_records().enumerate().peekable();
    let mut before: Option<CurvePoint> = None;
    Ok(std::iter::from_fn(move || {
        let (i, record) = records.next()?;
        let found = match &record {
            Err(error) => Err(error.to_string()),
            Ok(record) => record
                .deserialize::<CurvePoint>(Some(&header))
                .map_err(|error| what_is_wrong(&error, &header, record)),
        };
        if found.is_err() && is_torn && records.peek().is_none() {
            return None;
        }
        let point = found.and_then(|point| {
            point.check()?;
            before.as_ref().map_or(Ok(()), |before| point.check_after(before))?;
            Ok(point)
        });
        before = point.as_ref().ok().cloned();
        Some((i + 2, point.map_err(|reason| broken(path, i + 2, reason))))
    }))
}

/// An error in a row with the column and the value that it is in.
fn what_is_wrong(error: &csv::Error, header: &StringRecord, row: &StringRecord) -> String {
    let csv::ErrorKind::Deserialize { err, .. } = error.kind() else { return error.to_string() };
    let Some(at) = err.field().map(|field| field as usize) else { return err.kind().to_string() };
    let of = |record: &StringRecord| record.get(at).unwrap_or("").to_string();
    let due = match err.kind() {
        DeserializeErrorKind::ParseInt(_) => "must be a whole number, and not negative".to_string(),
        DeserializeErrorKind::ParseFloat(_) => "must be a number".to_string(),
        other => other.to_string(),
    };
    format!("{} = {}: {due}", of(header), of(row))
}

fn encode(points: &[CurvePoint], header: bool) -> Vec<u8> {
    const COLUMNS: &str = "stage,step,tokens,compute_flops,train_loss,val_loss,learning_rate,\
                           grad_norm,tokens_per_second,wall_seconds\n";
    let mut text = if header { COLUMNS.to_string() } else { String::new() };
    for p in points {
        let val_loss = p.val_loss.map_or(String::new(), |loss| loss.to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{:e},{},{val_loss},{},{},{:.1},{:.3}",
            p.stage,
            p.step,
            p.tokens,
            p.compute_flops,
            p.train_loss,
            p.learning_rate,
            p.grad_norm,
            p.tokens_per_second,
            p.wall_seconds,
        );
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(step: u64) -> CurvePoint {
        CurvePoint {
            stage: 0,
            step,
            tokens: step * 4096,
            compute_flops: step as f64 * 1.9e10,
            train_loss: 5.5 / step as f64,
            val_loss: step.is_multiple_of(2).then_some(1.0 / 3.0),
            learning_rate: 0.008,
            grad_norm: 0.7,
            tokens_per_second: 9000.0,
            wall_seconds: 0.5,
        }
    }

    fn write(path: &Path, steps: std::ops::RangeInclusive<u64>) {
        let (mut writer, _) = CurveWriter::resume(path, 0).unwrap();
        steps.for_each(|step| writer.append(&point(step)).unwrap());
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        write(&path, 1..=5);
        let curve = LearningCurve::read(&path).unwrap();
        assert_eq!(curve.points, (1..=5).map(point).collect::<Vec<_>>());
        assert_eq!(curve.evaluated().map(|(p, _)| p.step).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn resuming_drops_later_rows_and_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, straight) = (folder.path().join("a.csv"), folder.path().join("b.csv"));
        write(&path, 1..=5);
        let torn = std::fs::read_to_string(&path).unwrap() + "0,6,245";
        std::fs::write(&path, torn).unwrap();
        let (mut writer, kept) = CurveWriter::resume(&path, 3).unwrap();
        assert_eq!(kept.points.len(), 3);
        (4..=8).for_each(|step| writer.append(&point(step)).unwrap());
        write(&straight, 1..=8);
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&straight).unwrap());
    }

    #[test]
    fn a_torn_last_row_is_passed_over_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        write(&path, 1..=3);
        let whole = std::fs::read_to_string(&path).unwrap();
        let n_read = |text: String| {
            std::fs::write(&path, text).unwrap();
            LearningCurve::read(&path).map(|curve| curve.points.len())
        };
        assert_eq!(n_read(whole.clone() + "0,4,245").unwrap(), 3);
        // One that is whole but for its end counts.
        assert_eq!(n_read(whole.trim_end().to_string()).unwrap(), 3);
        assert!(n_read(whole.clone() + "0,4,245\n").is_err());
        assert!(n_read(whole.clone() + "0,4,245\n0,5").is_err());
    }

    #[test]
    fn rows_that_no_run_wrote_are_not_gone_on_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        write(&path, 1..=5);
        let whole = std::fs::read_to_string(&path).unwrap();
        let row = |k: usize| whole.lines().nth(k).unwrap();
        let with =
            |k: usize, from: &str, to: &str| whole.replace(row(k), &row(k).replace(from, to));
        let nan = row(2).replace(&point(2).val_loss.unwrap().to_string(), "nan");
        for (text, due) in [
            (whole.replace(row(2), &nan), "row 3: val_loss = NaN: must be finite"),
            (
                whole.replace(row(2), &format!("{}\n{}", row(2), row(2))),
                "row 4: step = 2: must be above 2, that of the row before",
            ),
            (whole.replace(&format!("{}\n", row(2)), ""), "row 3: step = 3: must be 2"),
            (whole.replace(row(2), "0,2"), "row 3"),
            (with(3, "12288", "1"), "row 4: tokens = 1: must be above"),
            (with(1, "0,1,", "0,0,"), "row 2: step = 0: must be at"),
            (with(1, "4096", "0"), "row 2: tokens = 0: must be at least 1"),
            (with(1, "1.9e10", "-1"), "row 2: compute_flops = -1: must be positive and finite"),
            (
                with(4, ",0.008,", ",inf,"),
                "row 5: learning_rate = inf: must be finite and not negative",
            ),
            (with(4, ",0.7,", ",nan,"), "row 5: grad_norm = NaN: must be finite and not negative"),
            (
                with(4, ",9000.0", ",inf"),
                "row 5: tokens_per_second = inf: must be finite and not negative",
            ),
            (
                with(4, ",0.5", ",-0.5"),
                "row 5: wall_seconds = -0.5: must be finite and not negative",
            ),
            (with(4, "1.375", "nan"), "row 5: train_loss = NaN: must be finite and not negative"),
            (with(4, "7.6e10", "1e999"), "row 5: compute_flops = inf: must be positive and finite"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let message = CurveWriter::resume(&path, 4).err().unwrap().to_string();
            assert!(message.contains(due), "{message}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_cut_curve_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        write(&path, 1..=5);
        let before = std::fs::read(&path).unwrap();
        let message = CurveWriter::resume(&path, 6).err().unwrap().to_string();
        assert!(message.contains("ends before step 6"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let gone = folder.path().join("gone.csv");
        assert!(CurveWriter::resume(&gone, 1).is_err() && !gone.exists());
        assert!(CurveWriter::resume(&gone, 0).is_ok());
    }

    #[test]
    fn a_broken_row_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        write(&path, 1..=2);
        let text = std::fs::read_to_string(&path).unwrap().replace("0,2,8192", "0,two,8192");
        std::fs::write(&path, text).unwrap();
        let message = LearningCurve::read(&path).unwrap_err().to_string();
        assert!(message.contains("row 3"), "{message}");
    }

    proptest! {
        #[test]
        fn losses_survive_the_file_bit_for_bit(loss in 1e-9f64..1e9, compute in 1.0f64..1e30) {
            let original = CurvePoint { train_loss: loss, compute_flops: compute, ..point(1) };
            let row = encode(std::slice::from_ref(&original), true);
            let back: CurvePoint =
                csv::Reader::from_reader(row.as_slice()).deserialize().next().unwrap().unwrap();
            prop_assert_eq!(back, original);
        }
    }
}
