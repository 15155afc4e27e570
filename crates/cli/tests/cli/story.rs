//! A staged run against its baseline: the comparison, its figure and its report, as a user makes them.

mod ends;
mod refused;
mod whole;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The folder of a run with the stage, compute and loss of each row; NaN where nothing was evaluated.
fn write_run(folder: &Path, schedule: &str, rows: &[(usize, f64, f64)]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("schedule.toml"), schedule).unwrap();
    let mut text = "stage,step,tokens,compute_flops,train_loss,val_loss,learning_rate,grad_norm,\
                    tokens_per_second,wall_seconds\n"
        .to_string();
    for (i, (stage, compute, loss)) in rows.iter().enumerate() {
        let step = i + 1;
        let tokens = 64 * step;
        let held_out = if loss.is_nan() { String::new() } else { loss.to_string() };
        writeln!(text, "{stage},{step},{tokens},{compute:e},2,{held_out},0.01,1,1,1").unwrap();
    }
    fs::write(folder.join("metrics.csv"), text).unwrap();
}
