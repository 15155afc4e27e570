use crate::output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use measure::{CurvePoint, Flops};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use trainer::{Event, GrowthReport, Start};

/// Seconds between two lines where there is no terminal to redraw.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Share of a new measurement in the shown speed and loss.
const SMOOTHING: f64 = 0.1;

/// Shows a run's events: one line that is drawn again on a terminal, a line now and then elsewhere.
/// What matters most comes first, for narrow terminals cut it off at the end.
pub struct Progress {
    line: StatusLine,
    shown: Option<Shown>,
}

/// Running means of what jumps from step to step.
struct Shown {
    loss: f64,
    tokens_per_second: f64,
    val_loss: Option<f64>,
    first_compute: f64,
    began: Instant,
}

/// A line on standard error that is drawn again and again where that is a terminal, and written now and then elsewhere.
pub struct StatusLine {
    bar: ProgressBar,
    last_line: Option<Instant>,
}

impl StatusLine {
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, last_line: None }
    }

    pub fn update(&mut self, text: &str) {
        self.bar.set_message(text.to_string());
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if self.bar.is_hidden() && due {
            self.last_line = Some(Instant::now());
            output::note(text);
        }
    }

    /// Writes a line that stays.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Says what takes its time, and for how long it has, where nothing tells how much is left; until it is dropped.
pub struct Waiting {
    bar: ProgressBar,
    /// Ends the lines that are written where there is no terminal.
    _lines: mpsc::Sender<()>,
}

impl Waiting {
    pub fn new(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg}: {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_secs(1));
        let (lines, ended) = mpsc::channel();
        if bar.is_hidden() {
            let began = Instant::now();
            std::thread::spawn(move || {
                while ended.recv_timeout(LINE_EVERY) == Err(RecvTimeoutError::Timeout) {
                    let seconds = began.elapsed().as_secs_f64();
                    output::note(&format!("{what}: {}", output::duration(seconds)));
                }
            });
        }
        Self { bar, _lines: lines }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Shows how far something has come, from a second on: no line for what is done at once.
pub struct Counter {
    line: StatusLine,
    what: &'static str,
    units: &'static str,
    began: Instant,
}

impl Counter {
    /// What is done within it has no line.
    const AT_ONCE: Duration = Duration::from_secs(1);

    pub fn new(what: &'static str, units: &'static str) -> Self {
        Self { line: StatusLine::new(), what, units, began: Instant::now() }
    }

    pub fn reach(&mut self, done: u64, total: u64) {
        let elapsed = self.began.elapsed();
        if elapsed < Self::AT_ONCE {
            return;
        }
        let left = match done {
            0 => "?".to_string(),
            done => output::duration(elapsed.as_secs_f64() * (total as f64 / done as f64 - 1.0)),
        };
        let [done, total] = [done, total].map(output::count);
        self.line.update(&format!("{}: {done} of {total} {}, {left} left", self.what, self.units));
    }

    pub fn end(self) {
        self.line.end();
    }
}

impl Progress {
    pub fn new() -> Self {
        Self { line: StatusLine::new(), shown: None }
    }

    /// Takes the line away, where no event ends it.
    pub fn end(&self) {
        self.line.end();
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::LearningVocabulary { read, total } if read < total => {
                self.reading("text to a vocabulary", *read, *total);
            }
            Event::LearningVocabulary { .. } => self.line.update("vocabulary: merging pairs"),
            Event::Preparing { done, total } => self.reading("tokenizing text", *done, *total),
            Event::Started { first_step, n_steps, .. } => {
                self.started(event);
                self.line.update(&format!("step {first_step}/{n_steps}"));
            }
            Event::Step { point, n_steps, total_flops } => {
                self.step(point, *n_steps, total_flops.0);
            }
            Event::Ended(_) => self.line.end(),
            other => self.tell(other),
        }
    }

    fn tell(&self, event: &Event) {
        for text in told(event).into_iter().chain(warned(event)) {
            self.line.note(&text);
        }
    }

    fn reading(&mut self, what: &str, done: u64, total: u64) {
        let share = 100.0 * done as f64 / total.max(1) as f64;
        self.line.update(&format!("{what}: {share:.0} % of {} bytes", output::count(total)));
    }

    fn started(&self, event: &Event) {
        let Event::Started {
            shape,
            n_params,
            n_params_total,
            flops_per_token,
            flops_per_token_exact,
            first_step,
            n_steps,
            n_tokens,
            n_stages,
            device,
            threads,
            loss_floor,
            ..
        } = event
        else {
            return;
        };
        self.line.note(&format!(
            "{shape} GPT (layers x width x heads), {} parameters ({} without embeddings), vocabulary of {}, {device}, {}",
            output::count(*n_params_total),
            output::count(*n_params),
            output::count(shape.n_vocab as u64),
            output::counted(*threads as u64, "thread"),
        ));
        self.line.note(&format!(
            "{flops_per_token} a token (6 N), {flops_per_token_exact} with attention and head"
        ));
        let (steps, tokens) = (output::counted(*n_steps, "step"), output::count(*n_tokens));
        let from = match first_step {
            0 => String::new(),
            step => format!(", from step {step}"),
        };
        let floor = loss_floor.map_or(String::new(), |floor| {
            format!("; no model's loss over all of the source's texts is below {floor:.4} nats per token")
        });
        let stages = if *n_stages > 1 { format!("{n_stages} stages, ") } else { String::new() };
        self.line.note(&format!("{stages}{steps}, {tokens} tokens{from}{floor}"));
        self.tell(event);
    }

    fn step(&mut self, point: &CurvePoint, n_steps: u64, total_flops: f64) {
        let shown = self.shown.get_or_insert_with(|| Shown {
            loss: point.train_loss,
            tokens_per_second: point.tokens_per_second,
            val_loss: None,
            first_compute: point.compute_flops,
            began: Instant::now(),
        });
        shown.loss += SMOOTHING * (point.train_loss - shown.loss);
        shown.tokens_per_second += SMOOTHING * (point.tokens_per_second - shown.tokens_per_second);
        shown.val_loss = point.val_loss.or(shown.val_loss);
        let done = point.compute_flops - shown.first_compute;
        let to_do = (total_flops - point.compute_flops).max(0.0);
        let left = if done > 0.0 {
            output::duration(shown.began.elapsed().as_secs_f64() / done * to_do)
        } else {
            "?".to_string()
        };
        let val_loss = shown.val_loss.map_or(String::new(), |loss| format!("  held-out {loss:.4}"));
        let text = format!(
            "step {}/{n_steps}  loss {:.4}  {:.0} % of compute  {left} left  {} tokens/s{val_loss}",
            point.step,
            shown.loss,
            100.0 * point.compute_flops / total_flops.max(1.0),
            output::count(shown.tokens_per_second as u64),
        );
        self.line.update(&text);
    }
}

fn grown(report: &GrowthReport) -> String {
    let check = &report.check;
    let kept = if report.loss_preserving { "kept" } else { "not kept by this operator" };
    format!(
        "step {}: grown to {} ({} parameters without embeddings): {}; loss over {} held-out tokens {:.6} -> {:.6}, {kept}; \
         largest change of a logit {:.1e}",
        report.step,
        report.to,
        output::count(report.n_params),
        report.operator,
        output::count(check.check_tokens),
        check.loss_before,
        check.loss_after,
        check.max_abs_delta_logit,
    )
}

/// What there is to tell of an event that happens now and then, in the same words for one run and for several.
pub fn told(event: &Event) -> Option<String> {
    match event {
        Event::Grown(report) => Some(grown(report)),
        Event::Branched(branch) => Some(format!(
            "the first {} steps are those of {}",
            output::count(branch.step),
            branch.of.display()
        )),
        Event::StartedWith(start) => Some(beginning(start)),
        _ => None,
    }
}

/// What a run begins with.
fn beginning(start: &Start) -> String {
    let trained = if start.tokens > 0 {
        let (tokens, flops) = (output::count(start.tokens), Flops(start.compute_flops));
        format!("; the {tokens} tokens ({flops}) that it was trained on are not counted")
    } else {
        String::new()
    };
    let moments = if start.has_moments { "" } else { "; it has no moments, so they begin at zero" };
    format!("begins with the model of {}{trained}{moments}", start.checkpoint.display())
}

/// Up to so many times the same tokens are nearly as good as new ones (Muennighoff et al. 2023, arXiv 2305.16264).
const MOST_EPOCHS: f64 = 4.0;

/// What there is to warn of in an event, likewise.
pub fn warned(event: &Event) -> Option<String> {
    let text = match event {
        Event::Skipped { path, reason } => {
            Some(format!("{} is passed over: {reason}", path.display()))
        }
        Event::MachineChanged { before, now } => Some(format!(
            "the state comes from {before}, the run goes on with {now}: the curve may differ in the last bits"
        )),
        Event::FewHeldOut { wanted, held_out } => Some(format!(
            "evaluation.tokens asks for {}, the data holds out {}: losses are over these",
            output::counted(*wanted, "token"),
            output::counted(*held_out, "token"),
        )),
        Event::SmallVocabulary { wanted, found } => Some(format!(
            "bpe:{wanted}: the text makes a vocabulary of {} only: it has no more pairs to merge",
            output::count(*found as u64),
        )),
        Event::TextLeftOut { tokenizer } => Some(format!(
            "{tokenizer} has neither an unknown token nor tokens for single bytes: what its vocabulary does not have is left out of the tokens"
        )),
        Event::Started { epochs: Some(epochs), .. } if *epochs > MOST_EPOCHS => Some(format!(
            "the run sees its text up to {epochs:.1} times: beyond {MOST_EPOCHS:.0} times it learns the text by heart, and no law of \
             fresh tokens holds; take more text or a smaller model"
        )),
        _ => None,
    };
    text.map(|text| format!("warning: {text}"))
}
