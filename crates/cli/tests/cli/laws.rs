//! From measured losses to a law, a plan, a schedule and its figures, as a user does it.

mod fits;
mod plans;
mod refused;

use super::world::World;
use std::fmt::Write as _;
use std::fs;

/// Besiroglu et al. 2024, as the truth behind the tables here.
fn loss_at(n: f64, tokens: f64) -> f64 {
    1.8172 + 482.01 * n.powf(-0.3478) + 2085.43 * tokens.powf(-0.3658)
}

const METRICS: &str = "stage,step,tokens,compute_flops,train_loss,val_loss,learning_rate,grad_norm,\
                       tokens_per_second,wall_seconds\n";

fn world() -> World {
    let world = World::empty();
    let mut table = "N,D,L,kind\n".to_string();
    for i in 0..8 {
        for j in 0..8 {
            let (n, tokens) = (1e7 * 2f64.powi(i), 1e9 * 2f64.powi(j));
            let noise = 0.002 * f64::from((13 * i + 7 * j) % 11 - 5) / 5.0;
            let loss = loss_at(n, tokens) * noise.exp();
            writeln!(table, "{n:e},{tokens:e},{loss},{}", if j < 7 { "a" } else { "b" }).unwrap();
        }
    }
    world.write("points.csv", &table);
    world.write("negative.csv", table.replacen("1e7,1e9", "-1e7,1e9", 1));
    world.write("nan.csv", table.replacen("1e7,1e9", "nan,1e9", 1));
    world.write("words.csv", table.replacen("1e7,1e9", "1e7,many", 1));
    let few: Vec<&str> = table.lines().take(4).collect();
    world.write("twins.csv", table.replacen("N,D,L,kind", "N,D,L,L", 1));
    world.write("blank.csv", table.replacen("1e7,2e9", "1e7,", 1));
    world.write("empty.csv", "");
    world.write("few.csv", few.join("\n"));
    let one_size: Vec<&str> = table.lines().take(9).collect();
    world.write("one_size.csv", one_size.join("\n"));
    for (name, n, steps, stable) in
        [("small", 1e6, 3000, 100), ("big", 4e6, 1500, 100), ("decayed", 4e6, 1500, 80)]
    {
        let mut text = METRICS.to_string();
        for i in 1..=100u32 {
            let step = steps / 100 * i;
            let tokens = 1e5 * f64::from(step);
            let (compute, loss) = (6.0 * n * tokens, loss_at(n, tokens));
            let rate = if i < 3 || i > stable { 0.001 } else { 0.01 };
            writeln!(text, "0,{step},{tokens},{compute:e},{loss},{loss},{rate},1,1,1").unwrap();
        }
        world.write(&format!("{name}/metrics.csv"), &text);
    }
    world.write("speed.csv", "n_layers,d_model,tokens_per_second\n2,64,1e5\n12,768,8e3\n");
    world.write("slow.csv", "n_params,tokens_per_second\n1e6,0\n");
    world.write("law.txt", "L = 2");
    let curve = fs::read_to_string(world.path("big/metrics.csv")).unwrap();
    world.write("wrong.csv", curve.replacen("\n0,30,", "\n0,NaN,", 1));
    let row = curve.lines().nth(2).unwrap();
    let loss = row.split(',').nth(5).unwrap();
    world.write(
        "no_loss.csv",
        curve.replacen(row, &row.replace(loss, "NaN").replacen("NaN", loss, 1), 1),
    );
    world.write("again.csv", curve.replacen(row, &format!("{row}\n{row}"), 1));
    world.write("table.points.csv", &table);
    world
}

const COLUMNS: &str = "--columns n_params=N,tokens=D,loss=L";
