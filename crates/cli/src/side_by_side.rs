//! Several runs at once, each on a thread of its own.

use crate::progress::{LINE_EVERY, status_line};
use crate::{output, train};
use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use trainer::{Event, Outcome, RunOptions, RunSummary, train};

/// Runs on screen at once.
const MOST_SHOWN: usize = 3;

/// Makes all runs, on as many threads as there are cores, the longest first: one thread a run, so that
/// each is the same whatever runs beside it. On a GPU one after the other. Stops and saves on a signal.
///
/// # Errors
/// The first error of a run; the others are stopped and saved then.
pub fn run_all(what: &str, runs: Vec<RunOptions>) -> Result<Vec<RunSummary>> {
    let stop = train::stop_on_signals()?;
    let on_cpu = runs.iter().all(|run| run.device == model::DeviceChoice::Cpu);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if on_cpu { cores.min(runs.len()) } else { 1 };
    let mut order: Vec<usize> = (0..runs.len()).collect();
    let compute = |i: &usize| runs[*i].schedule.most_compute();
    order.sort_by(|a, b| compute(b).total_cmp(&compute(a)));
    let board = Mutex::new(Board::new(what, &runs));
    let results: Mutex<Vec<Option<Result<RunSummary>>>> =
        Mutex::new(runs.iter().map(|_| None).collect());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let made = make(&runs[*i], *i, &board, stop);
                    if made.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    locked(&results)[*i] = Some(made);
                }
            });
        }
    });
    locked(&board).bar.finish_and_clear();
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let missing = || Err(anyhow!("a run was not made"));
    results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
}

fn make(
    options: &RunOptions,
    i: usize,
    board: &Mutex<Board>,
    stop: &AtomicBool,
) -> Result<RunSummary> {
    let threads = options.schedule.machine().threads.unwrap_or(1);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .context("threads cannot be started")?;
    let name = options.folder.display();
    pool.install(|| train(options, &mut |event| locked(board).show(i, event), stop))
        .with_context(|| name.to_string())
}

/// Whether all runs came to their end.
pub fn all_finished(summaries: &[RunSummary]) -> bool {
    summaries.iter().all(|summary| summary.outcome != Outcome::Interrupted)
}

/// What another thread left behind is good: only whole values are written.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line for all runs.
struct Board {
    what: String,
    bar: ProgressBar,
    runs: Vec<Shown>,
    began: Instant,
    /// Compute of all runs that was spent before this process.
    before: f64,
    last_line: Option<Instant>,
}

struct Shown {
    name: String,
    done: f64,
    total: f64,
    text: String,
    over: bool,
}

impl Board {
    fn new(what: &str, runs: &[RunOptions]) -> Self {
        let shown = |run: &RunOptions| Shown {
            name: run.schedule.name().to_string(),
            done: 0.0,
            total: run.schedule.most_compute(),
            text: String::new(),
            over: false,
        };
        Self {
            what: what.to_string(),
            bar: status_line(),
            runs: runs.iter().map(shown).collect(),
            began: Instant::now(),
            before: 0.0,
            last_line: None,
        }
    }

    fn show(&mut self, i: usize, event: &Event) {
        let name = self.runs[i].name.clone();
        match event {
            Event::Step { point, n_steps, total_flops } => {
                if self.runs[i].text.is_empty() {
                    // What it had done when it was resumed.
                    self.before += point.compute_flops;
                }
                let run = &mut self.runs[i];
                run.done = point.compute_flops;
                run.total = total_flops.0;
                run.text = format!("{name} {}/{n_steps} loss {:.3}", point.step, point.train_loss);
                self.line();
            }
            Event::Grown(report) => self.note(&format!(
                "{name}: step {}: grown to {}: {}; loss {:.6} -> {:.6}",
                report.step,
                report.to,
                report.operator,
                report.check.loss_before,
                report.check.loss_after
            )),
            Event::Skipped { path, reason } => {
                self.note(&format!("warning: {} is passed over: {reason}", path.display()));
            }
            Event::MachineChanged { before, now } => self.note(&format!(
                "warning: {name}: the state comes from {before}, the run goes on with {now}"
            )),
            Event::Ended(summary) => {
                let run = &mut self.runs[i];
                run.over = true;
                run.total = summary.compute_flops;
                run.done = summary.compute_flops;
                let loss = summary.val_loss.map_or("none".into(), |loss| format!("{loss:.4}"));
                self.note(&format!(
                    "{name}: {} tokens, held-out loss {loss}",
                    output::count(summary.tokens)
                ));
            }
            Event::Preparing { .. } | Event::Started { .. } | Event::Saved { .. } => {}
        }
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    fn line(&mut self) {
        let done: f64 = self.runs.iter().map(|run| run.done).sum();
        let total: f64 = self.runs.iter().map(|run| run.total).sum();
        let over = self.runs.iter().filter(|run| run.over).count();
        let made = done - self.before;
        let left = if made > 0.0 {
            let seconds = self.began.elapsed().as_secs_f64() / made * (total - done).max(0.0);
            output::duration(seconds)
        } else {
            "?".to_string()
        };
        let on: Vec<&str> = self
            .runs
            .iter()
            .filter(|run| !run.over && !run.text.is_empty())
            .map(|run| run.text.as_str())
            .take(MOST_SHOWN)
            .collect();
        let text = format!(
            "{}: {:.0} % of compute  {left} left  {over} of {} done  {}",
            self.what,
            100.0 * done / total.max(1.0),
            self.runs.len(),
            on.join("  ")
        );
        self.bar.set_message(text.clone());
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if self.bar.is_hidden() && due {
            self.last_line = Some(Instant::now());
            output::note(&text);
        }
    }
}
