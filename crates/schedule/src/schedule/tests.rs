use super::*;
use proptest::prelude::*;

pub(crate) const GOOD: &str = r#"
version = 1
name = "test"
seed = 1

[data]
source = "text"
files = ["a.txt"]
strip_cr = true

[model]
context_len = 128

[parametrization]
kind = "mup"
base_width = 64

[optimizer]
beta1 = 0.9
beta2 = 0.98
eps = 1e-9
weight_decay = 0.1
clip_norm = 1.0

[learning_rate]
shape = "constant"
peak = 0.008
warmup_steps = 100

[batch]
tokens = 4096
micro_batch = 32

[evaluation]
every_steps = 50
tokens = 49152

[checkpoint]
every_steps = 200
keep = 2

[[stages]]
n_layers = 4
d_model = 128
n_heads = 4
until = { steps = 1200 }
"#;

pub(crate) fn parse(text: &str) -> Result<Schedule, ScheduleError> {
    Schedule::parse(text, Path::new("x.toml"))
}

#[test]
fn a_good_file_is_read_with_its_defaults() {
    let schedule = parse(GOOD).unwrap();
    assert_eq!(schedule.parametrization(), Parametrization::mup(64));
    assert_eq!(schedule.stages()[0].shape(256).d_ff, 512);
    assert_eq!(schedule.n_steps(), 1200);
    assert!(schedule.stages()[0].shape(256).tied_head);
    let untied = GOOD.replace("[model]\n", "[model]\ntied_head = false\n");
    assert!(!parse(&untied).unwrap().stages()[0].shape(256).tied_head);
}

#[test]
fn a_rule_for_moments_says_what_it_can_be() {
    let due = "moments must be \"mapped\", \"zero\" or { reestimated = BATCHES }";
    for rule in ["\"reestimated\"", "{ reestimated = 4, mapped = true }", "4"] {
        let growth = format!("growth = {{ moments = {rule} }}");
        let text = second(&format!(
            "n_layers = 4;d_model = 256;n_heads = 8;{growth};until = {{ steps = 10 }};"
        ));
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(due), "{error}");
    }
}

#[test]
fn writing_and_reading_is_identity() {
    let schedule = parse(GOOD).unwrap();
    let again = parse(&schedule.to_toml()).unwrap();
    let in_full = GOOD.replace("n_heads = 4\n", "n_heads = 4\nd_head = 32\nd_ff = 512\n");
    assert_eq!(parse(&in_full).unwrap(), schedule);
    let thin = parse(&GOOD.replace("n_heads = 4\n", "n_heads = 3\nd_head = 32\nd_ff = 128\n"));
    assert_eq!(thin.unwrap().stages()[0].shape(256).to_string(), "4x128x3-h32-f128");
    assert_eq!(again, schedule);
    assert_eq!(again.to_toml(), schedule.to_toml());
}

pub(crate) fn second(stage: &str) -> String {
    let stage = stage.replace(';', "\n");
    GOOD.replace("{ steps = 1200 }", "{ steps = 1200 }\n\n[[stages]]\n") + &stage
}

#[test]
fn stages_grow_and_their_steps_add_up() {
    let text = second("n_layers = 6;d_model = 256;n_heads = 8;until = { tokens = 40960 };");
    let schedule = parse(&text).unwrap();
    assert_eq!(schedule.n_steps(), 1210);
    assert_eq!(*schedule.stages()[1].growth(), Growth::default());
    let full = "growth = { width = \"split\", split_strength = 0.2, depth = \"copy\", \
         placement = [0, 1, 1, 2, 3, 3], moments = { reestimated = 8 }, resumed_step = 400 };";
    let text = text + &full.replace(';', "\n");
    let schedule = parse(&text).unwrap();
    assert_eq!(schedule.stages()[1].growth().resumed_step, Some(400));
    assert_eq!(parse(&schedule.to_toml()).unwrap(), schedule);
}

/// Every value of a good file in turn becomes one that it should not be: what is taken then must not make what is asked of it
/// panic.
#[test]
fn no_value_makes_a_schedule_panic() {
    let values = [
        "0",
        "1",
        "-1",
        "2",
        "0.5",
        "1e-320",
        "1e308",
        "nan",
        "inf",
        "9223372036854775807",
        "1000000000000",
        "true",
        "\"x\"",
        "[]",
        "{}",
    ];
    let good = second(
        "n_layers = 6;d_model = 256;n_heads = 8;[stages.until];steps = 10;tokens = 40960;compute = 1e15;[stages.growth];\
         resumed_step = 5;rewarmup_steps = 2;split_strength = 0.5;[from_scratch];peak = 0.01;[from_scratch.until];steps = 9;\
         loss = 1.5",
    );
    parse(&good).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let mut taken = 0;
    for (i, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once('=') else { continue };
        for value in values {
            let mut changed = lines.clone();
            let line = format!("{key}= {value}");
            changed[i] = &line;
            let Ok(schedule) = parse(&changed.join("\n")) else { continue };
            taken += 1;
            let steps = schedule.n_steps();
            assert!(schedule.most_compute() > 0.0, "{line}");
            for step in [1, steps / 2, steps] {
                let before = schedule.steps_of(0, 0).min(step);
                assert!(schedule.learning_rate_at(1, before, step) >= 0.0, "{line}");
            }
            assert_eq!(parse(&schedule.to_toml()).unwrap(), schedule, "{line}");
            let _ = schedule.clone().with_length(0.5);
            assert!(schedule.from_scratch().is_ok(), "{line}");
        }
    }
    assert!(taken > 50, "{taken}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}", at in 0usize..600) {
        let mut broken = GOOD.to_string();
        let at = at.min(broken.len());
        broken.insert_str(at, &text);
        let _ = parse(&broken);
    }
}
