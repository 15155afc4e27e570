//! Several runs at once, each on a thread of its own.

use crate::progress::{StatusLine, told, warned};
use crate::{output, train};
use anyhow::{Context, Result, anyhow};
use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use trainer::{Event, Outcome, RunOptions, RunSummary, TrainError, train};

/// Runs on screen at once.
const MOST_SHOWN: usize = 3;

/// How a run ended.
pub enum Ended {
    /// With a summary.
    Made(RunSummary),
    /// Before a step whose loss or gradient was no longer a number.
    Diverged { step: u64 },
}

/// Makes all runs, on as many threads as there are cores, the longest first: one thread a run, so that
/// each is the same whatever runs beside it. On a GPU one after the other. A run that branches off another
/// of them waits for it. Stops and saves on a signal, and gives `None` then.
///
/// # Errors
/// The first error of a run; the others are stopped and saved then.
pub fn run_all(what: &str, runs: Vec<RunOptions>) -> Result<Option<Vec<RunSummary>>> {
    let ended = run_queue(what, &runs, |made| made.map(Ended::Made))?;
    let summary = |ended| match ended {
        Ended::Made(summary) => Ok(summary),
        Ended::Diverged { step } => Err(anyhow!("a run diverged at step {step}")),
    };
    ended.map(|ended| ended.into_iter().map(summary).collect()).transpose()
}

/// The same for runs of which some may diverge, which then end alone.
pub fn run_each(what: &str, runs: &[RunOptions]) -> Result<Option<Vec<Ended>>> {
    run_queue(what, runs, |made| match made {
        Err(error) => match error.downcast_ref() {
            Some(TrainError::NotFinite { step, .. }) => Ok(Ended::Diverged { step: *step }),
            _ => Err(error),
        },
        Ok(summary) => Ok(Ended::Made(summary)),
    })
}

fn run_queue(
    what: &str,
    runs: &[RunOptions],
    ended: impl Fn(Result<RunSummary>) -> Result<Ended> + Sync,
) -> Result<Option<Vec<Ended>>> {
    let stop = train::stop_on_signals()?;
    let on_cpu = runs.iter().all(|run| run.device == model::DeviceChoice::Cpu);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if on_cpu { cores.min(runs.len()) } else { 1 };
    let board = Mutex::new(Board::new(what, runs));
    let queue = Queue::new(runs);
    let make = |i: usize| {
        let ended = ended(make(&runs[i], i, &board, stop))?;
        if let Ended::Diverged { step } = ended {
            locked(&board).diverged(i, step);
        }
        Ok(ended)
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| queue.work(stop, make));
        }
    });
    locked(&board).line.end();
    queue.into_results()
}

/// Runs that wait, are on, or are made.
struct Queue {
    jobs: Mutex<Vec<Job>>,
    changed: Condvar,
    /// All runs, the longest first.
    order: Vec<usize>,
}

struct Job {
    /// The run that must be made before.
    after: Option<usize>,
    taken: bool,
    made: Option<Result<Ended>>,
}

impl Job {
    fn came_to_its_end(&self) -> bool {
        match &self.made {
            Some(Ok(Ended::Made(summary))) => summary.outcome != Outcome::Interrupted,
            Some(Ok(Ended::Diverged { .. })) => true,
            Some(Err(_)) | None => false,
        }
    }
}

impl Queue {
    fn new(runs: &[RunOptions]) -> Self {
        let after = |run: &RunOptions| {
            let of = run.branch_of.as_ref()?;
            runs.iter().position(|other| other.folder == *of)
        };
        let jobs = runs.iter().map(|run| Job { after: after(run), taken: false, made: None });
        let compute = |i: &usize| runs[*i].schedule.most_compute();
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by(|a, b| compute(b).total_cmp(&compute(a)));
        Self { jobs: Mutex::new(jobs.collect()), changed: Condvar::new(), order }
    }

    /// Makes runs until none is left, or `stop` is set. A panic ends the others too before it goes on: they would wait for ever for the
    /// run that it broke off.
    fn work(&self, stop: &AtomicBool, make: impl Fn(usize) -> Result<Ended>) {
        while let Some(i) = self.next(stop) {
            let made = panic::catch_unwind(AssertUnwindSafe(|| make(i)));
            if !matches!(made, Ok(Ok(_))) {
                stop.store(true, Ordering::Relaxed);
            }
            match made {
                Ok(made) => self.is_made(i, made),
                Err(panicked) => {
                    self.is_made(i, Err(anyhow!("it panicked")));
                    panic::resume_unwind(panicked);
                }
            }
        }
    }

    /// The longest run that can begin; waits for one. `None` when there is none left, or none that will ever begin, or `stop` is set.
    fn next(&self, stop: &AtomicBool) -> Option<usize> {
        let mut jobs = locked(&self.jobs);
        loop {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let can_begin = |i: &&usize| {
                !jobs[**i].taken && jobs[**i].after.is_none_or(|one| jobs[one].came_to_its_end())
            };
            if let Some(i) = self.order.iter().find(can_begin).copied() {
                jobs[i].taken = true;
                return Some(i);
            }
            if jobs.iter().all(|job| !job.taken || job.made.is_some()) {
                return None;
            }
            jobs = self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_made(&self, i: usize, made: Result<Ended>) {
        locked(&self.jobs)[i].made = Some(made);
        self.changed.notify_all();
    }

    /// How all ended, or the first error; `None` where a run did not come to its end.
    fn into_results(self) -> Result<Option<Vec<Ended>>> {
        let jobs = self.jobs.into_inner().unwrap_or_else(PoisonError::into_inner);
        let all_ended = jobs.iter().all(Job::came_to_its_end);
        let made: Vec<Ended> =
            jobs.into_iter().filter_map(|job| job.made).collect::<Result<_>>()?;
        Ok(all_ended.then_some(made))
    }
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
    let name = options.folder.display().to_string();
    let trained = pool.install(|| train(options, &mut |event| locked(board).show(i, event), stop));
    trained.map_err(|error| {
        let names_it = error.to_string().starts_with(&name);
        let error = anyhow::Error::from(error);
        if names_it { error } else { error.context(name) }
    })
}

/// What another thread left behind is good: only whole values are written.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line for all runs.
struct Board {
    what: String,
    line: StatusLine,
    runs: Vec<Shown>,
    began: Instant,
    /// Compute of all runs that was spent before this process.
    before: f64,
    /// Warnings of the data that were given.
    warned: HashSet<String>,
}

struct Shown {
    name: String,
    done: f64,
    total: f64,
    text: String,
    tokens_per_second: f64,
    over: bool,
}

impl Board {
    fn new(what: &str, runs: &[RunOptions]) -> Self {
        let shown = |run: &RunOptions| Shown {
            name: run.schedule.name().to_string(),
            done: 0.0,
            total: run.schedule.most_compute(),
            text: String::new(),
            tokens_per_second: 0.0,
            over: false,
        };
        Self {
            what: what.to_string(),
            line: StatusLine::new(),
            runs: runs.iter().map(shown).collect(),
            began: Instant::now(),
            before: 0.0,
            warned: HashSet::new(),
        }
    }

    fn show(&mut self, i: usize, event: &Event) {
        let name = self.runs[i].name.clone();
        // What the data lacks it lacks for all runs.
        let of_data = matches!(
            event,
            Event::FewHeldOut { .. } | Event::SmallVocabulary { .. } | Event::TextLeftOut { .. }
        );
        let new = warned(event).filter(|text| !of_data || self.warned.insert(text.clone()));
        for text in told(event).into_iter().chain(new) {
            self.note(&format!("{name}: {text}"));
        }
        match event {
            Event::Step { point, n_steps, total_flops } => {
                if self.runs[i].text.is_empty() {
                    // What it had done when it was resumed.
                    self.before += point.compute_flops;
                }
                let run = &mut self.runs[i];
                run.done = point.compute_flops;
                run.total = total_flops.0;
                run.tokens_per_second = point.tokens_per_second;
                run.text = format!("{name} {}/{n_steps} loss {:.3}", point.step, point.train_loss);
                self.line();
            }
            Event::Ended(summary) => {
                let run = &mut self.runs[i];
                if run.text.is_empty() {
                    // It was over before.
                    self.before += summary.compute_flops;
                }
                run.over = true;
                run.total = summary.compute_flops;
                run.done = summary.compute_flops;
                let loss = summary.val_loss.map_or("none".into(), |loss| format!("{loss:.4}"));
                let interrupted = summary.outcome == Outcome::Interrupted;
                self.note(&format!(
                    "{name}: {}{} tokens, held-out loss {loss}",
                    if interrupted { "interrupted after " } else { "" },
                    output::count(summary.tokens)
                ));
            }
            _ => {}
        }
    }

    /// Ends a run that makes no more steps.
    fn diverged(&mut self, i: usize, step: u64) {
        let run = &mut self.runs[i];
        run.over = true;
        run.total = run.done;
        let text = format!("{}: diverged at step {}", run.name, output::count(step));
        self.note(&text);
    }

    fn note(&self, text: &str) {
        self.line.note(text);
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
        let on = || self.runs.iter().filter(|run| !run.over && !run.text.is_empty());
        let shown: Vec<&str> = on().map(|run| run.text.as_str()).take(MOST_SHOWN).collect();
        let tokens_per_second: f64 = on().map(|run| run.tokens_per_second).sum();
        let text = format!(
            "{}: {:.0} % of compute  {left} left  {} tokens/s  {over} of {} done  {}",
            self.what,
            100.0 * done / total.max(1.0),
            output::count(tokens_per_second as u64),
            self.runs.len(),
            shown.join("  ")
        );
        self.line.update(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One run, and one that waits for it.
    fn queue() -> Queue {
        let job = |after| Job { after, taken: false, made: None };
        let jobs = Mutex::new(vec![job(None), job(Some(0))]);
        Queue { jobs, changed: Condvar::new(), order: vec![0, 1] }
    }

    #[test]
    fn a_run_that_breaks_off_ends_those_that_wait_for_it() {
        for panics in [false, true] {
            let (queue, stop) = (queue(), AtomicBool::new(false));
            let make = |i: usize| {
                assert_eq!(i, 0, "the other one never begins");
                std::thread::sleep(std::time::Duration::from_millis(50));
                assert!(!panics, "as asked");
                Err(anyhow!("no disk"))
            };
            let ended = panic::catch_unwind(AssertUnwindSafe(|| {
                std::thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| queue.work(&stop, make));
                    }
                });
            }));
            assert_eq!(ended.is_err(), panics);
            assert!(stop.load(Ordering::Relaxed));
            assert!(queue.into_results().is_err());
        }
    }
}
