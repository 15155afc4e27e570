use crate::bench_fit::FitBench;
use crate::bench_growth::GrowthBench;
use crate::progress::Waiting;
use crate::{output, shapes, train};
use anyhow::Result;
use clap::{Args, Subcommand};
use measure::{GptShape, Precision};
use trainer::{StepBench, StepReport};

/// Arguments of `staged bench`.
#[derive(Args)]
#[command(after_help = "Example: staged bench step --shape 4x128x4 --json")]
pub struct Bench {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Measure a training step on random tokens
    Step(Step),
    /// Check that the intervals of fitted laws hold the truth, and how long fits take
    Fit(FitBench),
    /// Compare ways of growing by how fast the loss falls after them
    Growth(GrowthBench),
}

#[derive(Args)]
#[command(
    after_help = "Example: staged bench step --shape 4x128x4 --context 128 --vocab 512 --batch 16"
)]
struct Step {
    /// LAYERSxWIDTHxHEADS, with -hWIDTH of a head and -fWIDTH of the feed-forward layer where they are not GPT-2's
    #[arg(long, default_value = "4x128x4")]
    shape: String,
    /// Positions in a sequence
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Tokens in the vocabulary
    #[arg(long, default_value_t = 512)]
    vocab: usize,
    /// Sequences in a step
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch: u64,
    /// Sequences in one forward pass [default: half of a thread's share of the batch]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    micro_batch: Option<u64>,
    /// Steps that are measured, after two that are not
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    steps: u64,
    /// Threads on the CPU [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: Option<u64>,
    /// cpu, cuda or cuda:NUMBER
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Make activations again in the backward pass, for less memory
    #[arg(long)]
    recompute: bool,
    /// Compute in bfloat16 (CUDA only)
    #[arg(long)]
    bf16: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        match self.command {
            BenchCommand::Step(step) => step.run(),
            BenchCommand::Fit(fit) => fit.run(),
            BenchCommand::Growth(growth) => growth.run(),
        }
    }
}

impl Step {
    fn run(self) -> Result<()> {
        let shape = self.shape()?;
        train::use_threads(self.threads.map(|threads| threads as usize))?;
        let threads = rayon::current_num_threads() as u64;
        let bench = StepBench {
            shape,
            sequences: self.batch,
            micro_batch: self.micro_batch.unwrap_or((self.batch / (2 * threads)).max(1)),
            steps: self.steps as usize,
            device: self.device.parse()?,
            recompute: self.recompute,
            precision: if self.bf16 { Precision::Bf16 } else { Precision::F32 },
        };
        let waiting = Waiting::new("measuring steps");
        let report = bench.run();
        drop(waiting);
        let report = report?;
        if self.json { output::json(&report) } else { print(&report) }
    }

    fn shape(&self) -> Result<GptShape> {
        shapes::shape("--shape", &self.shape, self.vocab, self.context)
    }
}

fn print(report: &StepReport) -> Result<()> {
    let memory = report
        .peak_rss_bytes
        .map_or("unknown".to_string(), |bytes| format!("{} MB", bytes / 1_000_000));
    output::line(&format!("{:.0} tokens/s, {} threads", report.tokens_per_second, report.threads))?;
    output::line(&format!(
        "{:.1} GFLOP/s, {:.1} % of the matrix product's {:.0}",
        report.gflops,
        100.0 * report.peak_fraction,
        report.peak_gflops,
    ))?;
    output::line(&format!(
        "step {:.1} ms: gradients {:.1} ms, optimizer {:.1} ms",
        1e3 * report.step_seconds,
        1e3 * report.gradients_seconds,
        1e3 * report.optimizer_seconds,
    ))?;
    let parts: Vec<String> = report
        .parts
        .iter()
        .map(|(part, seconds)| format!("{part} {:.1} ms", 1e3 * seconds))
        .collect();
    output::line(&format!("of the gradients: {}", parts.join(", ").replace('_', " ")))?;
    output::line(&format!("peak memory {memory}"))
}
