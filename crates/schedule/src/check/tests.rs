use crate::schedule::tests::{GOOD, parse, second};

/// What stands in a good file, what is put there, and what is said about it.
const BAD: &[(&str, &str, &str)] = &[
    ("n_heads = 4", "n_heads = 3", "stages[0].n_heads = 3: must divide d_model = 128"),
    ("tokens = 4096", "tokens = 4000", "batch.tokens = 4000: must be a positive multiple"),
    ("keep = 2", "keep = 0", "checkpoint.keep = 0: must be at least 1"),
    ("peak = 0.008", "peak = -1.0", "learning_rate.peak = -1: must be positive"),
    ("peak = 0.008", "peak = 1e300", "learning_rate.peak = 1e300: must be below"),
    ("peak = 0.008", "peak = nan", "learning_rate.peak = NaN: must be positive"),
    ("beta2 = 0.98", "beta2 = 1.0", "optimizer.beta2 = 1: must be at least 0 and below 1"),
    ("seed = 1", "seed = 1\nsede = 2", "unknown field `sede`"),
    ("strip_cr = true", "strip_rc = true", "unknown field `strip_rc`"),
    ("source = \"text\"", "source = \"txt\"", "unknown variant `txt`"),
    ("base_width = 64", "", "base_width"),
    ("tokens = 49152", "tokens = 9000000000", "must be at most 134217728"),
    ("eps = 1e-9", "eps = 1e-46", "optimizer.eps = "),
    ("d_model = 128", "d_model = 10000000", "d_model = 10000000: must be from 1 to 100000"),
    ("n_layers = 4", "n_layers = 0", "stages[0].n_layers = 0: must be from 1"),
    ("base_width = 64", "base_width = 64\nhidden_std = 1.0", "hidden_std"),
    ("{ steps = 1200 }", "{ loss = 1.5 }", "stages[0].until = { loss }: needs steps"),
    ("{ steps = 1200 }", "{ slope = -0.05 }", "stages[0].until = { slope }: needs steps"),
    ("{ steps = 1200 }", "{ steps = 9, slope = 0.1 }", "slope = 0.1: must be negative"),
    ("until = { steps = 1200 }", "until = { steps = 1200 }\ngrowth = {}", "grows from nothing"),
    ("version = 1", "version = 2", "version = 2: this version reads version 1"),
    ("name = \"test\"", "name = \"../x\"", "name = \"../x\": must be letters"),
    ("d_model = 128", "d_model = \"wide\"", "invalid type: string \"wide\""),
    ("weight_decay = 0.1", "weight_decay = 125", "peak = 0.008: must be below 1 / optimizer"),
    ("strip_cr = true", "strip_cr = 5", "expected a boolean (strip_cr)"),
    ("base_width = 64", "base_width = 1e3", "expected usize (base_width)"),
    ("every_steps = 50", "every_steps = 0", "evaluation.every_steps = 0: must be at least 1"),
    ("tokens = 49152", "tokens = 7", "evaluation.tokens = 7: must be at least one sequence"),
    ("base_width = 64", "base_width = 0", "parametrization.base_width = 0: must be from 1"),
    (
        "base_width = 64",
        "base_width = 64\noutput_multiplier = 1e-300",
        "output_multiplier = 1e-300: must be from 1e-10",
    ),
    (
        "base_width = 64",
        "base_width = 64\nhidden_gain = 1e300",
        "hidden_gain = 1e300: must be from 1e-10",
    ),
    (
        "base_width = 64",
        "base_width = 64\nembedding_std = 0.0",
        "embedding_std = 0: must be from 1e-10",
    ),
    ("eps = 1e-9", "eps = 2e12", "optimizer.eps = 2000000000000: must be from 1e-30"),
    ("clip_norm = 1.0", "clip_norm = -1.0", "optimizer.clip_norm = -1: must be at least 1e-10"),
    (
        "weight_decay = 0.1",
        "weight_decay = -0.1",
        "optimizer.weight_decay = -0.1: must be 0 or more",
    ),
    (
        "peak = 0.008",
        "peak = 0.008\nfinal_fraction = 0.5",
        "learning_rate.final_fraction = 0.5: a constant learning rate",
    ),
    ("peak = 0.008", "peak = 0.008\ndecay_fraction = 0.5", "decay_fraction = 0.5: only shape"),
    ("micro_batch = 32", "micro_batch = 0", "batch.micro_batch = 0: must be at least 1"),
    (
        "micro_batch = 32",
        "micro_batch = 32\n[batch.ramp]\nfrom_tokens = 8192\nsteps = 9",
        "batch.ramp.from_tokens = 8192: must be at most",
    ),
    (
        "micro_batch = 32",
        "micro_batch = 32\n[batch.ramp]\nfrom_tokens = 1000\nsteps = 9",
        "batch.ramp.from_tokens = 1000: must be a positive",
    ),
    (
        "micro_batch = 32",
        "micro_batch = 32\n[batch.ramp]\nfrom_tokens = 1024\nsteps = 0",
        "batch.ramp.steps = 0: must be from 1",
    ),
    ("{ steps = 1200 }", "{ steps = 0 }", "stages[0].until.steps = 0: must be at least 1"),
    ("{ steps = 1200 }", "{ tokens = 0 }", "stages[0].until.tokens = 0: must be at least 1"),
    ("{ steps = 1200 }", "{ compute = -1.0 }", "stages[0].until.compute = -1: must be positive"),
    ("{ steps = 1200 }", "{ steps = 9, loss = 0.0 }", "stages[0].until.loss = 0: must be positive"),
    ("[[stages]]", "[machine]\nthreads = 0\n\n[[stages]]", "machine.threads = 0: must be from 1"),
    (
        "[[stages]]",
        "[from_scratch]\npeak = 0.0\n\n[[stages]]",
        "from_scratch.peak = 0: must be positive",
    ),
    (
        "[[stages]]",
        "[from_scratch]\nuntil = { loss = 1.5 }\n\n[[stages]]",
        "from_scratch.until = { loss }: needs steps",
    ),
    (
        "strip_cr = true",
        "strip_cr = true\nvalidation_fraction = 1.0",
        "data.validation_fraction = 1: must be between 0 and 1",
    ),
    ("name = \"test\"", "name = \"_x\"", "a letter or digit first"),
    ("seed = 1", "seed = 1\npilot_compute = 0.0", "pilot_compute = 0: must be positive"),
];

#[test]
fn each_bad_value_is_named_with_what_would_be_right() {
    for (good, bad, message) in BAD {
        let error = parse(&GOOD.replacen(good, bad, 1)).unwrap_err().to_string();
        assert!(error.contains(message), "{bad}: {error}");
        assert!(error.starts_with("x.toml: "), "{error}");
    }
}

#[test]
fn a_predicted_curve_has_points_of_every_stage_in_order() {
    let grown = second("n_layers = 6;d_model = 256;n_heads = 8;until = { tokens = 40960 };");
    let found = |stage: &str, compute: &str| {
        let text = format!(
            "{grown}\n[prediction]\nlaw = \"x\"\nbatch = \"1\"\nfinal_loss = 2\ncompute = 3e9\n\
             compute_from_scratch = 3e9\nsaving = 0\n[prediction.curve]\nstage = {stage}\n\
             tokens = [1, 2, 3, 4]\ncompute = {compute}\nloss = [5, 4, 3, 2]\n"
        );
        parse(&text).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let rising = "[1, 2, 3, 4]";
    assert_eq!(found("[0, 0, 1, 1]", rising), "");
    let cases = [
        ("[0, 0, 1, 1]", "[1, 2, 2, 4]", "prediction.curve.compute[2] = 2: must be above"),
        ("[0, 1, 0, 1]", rising, "prediction.curve.stage[2] = 0: must not be below"),
        ("[0, 0, 0, 1]", rising, "prediction.curve.stage = 1: must have at least two points of"),
        ("[0, 0, 0, 2]", rising, "prediction.curve.stage[3] = 2: must be a stage, from 0 to 1"),
    ];
    for (stage, compute, message) in cases {
        let found = found(stage, compute);
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn stages_that_do_not_grow_are_explained() {
    let cases = [
        ("n_layers = 4;d_model = 64;n_heads = 2;", "stages[1].d_model = 64: must be at least 128"),
        ("n_layers = 3;d_model = 128;n_heads = 4;", "stages[1].n_layers = 3: must be at least 4"),
        ("n_layers = 4;d_model = 128;n_heads = 4;", "must be larger than the model before"),
        ("n_layers = 4;d_model = 256;n_heads = 16;", "stages[1].d_head = 16: must be at least 32"),
        (
            "n_layers = 4;d_model = 192;n_heads = 6;growth = { width = \"split\" };",
            "stages[1].growth.width = split: needs d_model, n_heads and d_ff to grow by one",
        ),
        (
            "n_layers = 4;d_model = 256;n_heads = 8;growth = { width = \"wide\" };",
            "unknown variant `wide`",
        ),
    ];
    for (stage, message) in cases {
        let text = second(&(stage.to_string() + "until = { steps = 10 };"));
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(message), "{stage}: {error}");
    }
}

#[test]
fn steps_beyond_any_run_are_refused() {
    let with = |until: &str| {
        second(&format!("n_layers = 6;d_model = 256;n_heads = 8;until = {{ {until} }};"))
    };
    for until in ["steps = 9000000000000000000", "compute = 1e300", "tokens = 5000000000000000000"]
    {
        let error = parse(&with(until)).unwrap_err().to_string();
        assert!(
            error.contains("stages[1].until = ") && error.contains("at most 1e12 steps"),
            "{error}"
        );
    }
    let alone = "[from_scratch]\nuntil = { steps = 9000000000000000000 }\n";
    let error = parse(&(with("steps = 10") + "\n" + alone)).unwrap_err().to_string();
    assert!(error.contains("from_scratch.until = "), "{error}");
    let large = with("steps = 1000000000000").replace("tokens = 4096", "tokens = 1073741824");
    assert!(parse(&large).unwrap_err().to_string().contains("at most 1e18 tokens"));
    // One limit of several counts, the first to come.
    let most = parse(&with("steps = 1000000000000, compute = 1e300")).unwrap();
    assert_eq!(most.n_steps(), 1_000_000_001_200);
    assert!(most.most_compute() > most.stages()[1].shape(1).flops_per_token().0 * 4e15);
}
