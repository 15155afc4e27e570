//! Models that Hugging Face's transformers wrote.

use crate::checkpoint::{MODEL_FILE, write_checkpoint, write_folder};
use crate::export::{CONFIG_FILE, TOKENIZER_FILE};
use crate::file::write_synced;
use crate::{
    ModelConstants, Moments, Origin, ParamId, Position, StateError, TensorGroup, TrainingState,
    inventory,
};
use half::{bf16, f16};
use measure::{GptShape, Parametrization, ShapeError};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an imported model's tokens mean.
#[derive(Clone, Copy, Debug)]
pub struct ImportedVocabulary<'a> {
    /// What identifies the vocabulary.
    pub name: &'a str,
    /// Its tokens.
    pub n_vocab: usize,
    /// Its tokenizer.json, which goes along, where it has one.
    pub json: Option<&'a str>,
}

/// Reads config.json and model.safetensors of a `GPT2LMHeadModel` (weights in 32 or 16 bits, with or without the prefix
/// `transformer.`) and writes them as a checkpoint before its first step, in GPT-2's parametrization and with moments of zero, to a
/// folder that appears only once it is whole. `versions` goes into its record. Returns the shape.
///
/// # Errors
/// A model that is none of GPT-2's architecture or of another vocabulary, the key or the line named; a tensor that is missing, of other dimensions,
/// not known or not finite; the target exists; a file cannot be read or written; `stop` was set.
pub fn import(
    folder: &Path,
    vocabulary: ImportedVocabulary<'_>,
    versions: &str,
    target: &Path,
    stop: &AtomicBool,
) -> Result<GptShape, StateError> {
    let config_path = folder.join(CONFIG_FILE);
    let (shape, norm_eps) = read_config(&config_path)?;
    if shape.n_vocab != vocabulary.n_vocab {
        let reason = format!(
            "vocab_size = {}: its tokenizer has {} tokens, and an embedding with other rows is not supported",
            shape.n_vocab, vocabulary.n_vocab
        );
        return Err(StateError::broken(&config_path, reason));
    }
    let path = folder.join(MODEL_FILE);
    if !path.exists() {
        let reason = "is not there; models in several files or in other formats become one by save_pretrained(FOLDER, \
                      safe_serialization=True, max_shard_size=\"100GB\") of transformers";
        return Err(StateError::broken(&path, reason.to_string()));
    }
    let bytes = fs::read(&path).map_err(StateError::io(&path))?;
    let source = Source::new(&path, &bytes, &shape)?;
    let frame = TrainingState {
        shape,
        parametrization: Parametrization::standard(),
        constants: ModelConstants { output_multiplier: 1.0, norm_eps },
        position: Position::default(),
        origin: Origin {
            vocabulary: vocabulary.name.to_string(),
            data: format!("imported from {}", folder.display()),
            versions: versions.to_string(),
            ..Origin::of_no_run(0)
        },
        params: BTreeMap::new(),
        moments: Moments::zeros(&BTreeMap::new()),
    };
    write_folder(target, &mut |partial| {
        write_checkpoint(partial, &frame, &mut |group, id, sink| match group {
            _ if stop.load(Ordering::Relaxed) => Err(StateError::Stopped),
            TensorGroup::Params => sink.write(&source.tensor(id)?),
            TensorGroup::FirstMoment | TensorGroup::SecondMoment => {
                sink.write(&vec![0.0; id.role.dims(&shape).iter().product()])
            }
        })?;
        if let Some(json) = vocabulary.json {
            write_synced(&partial.join(TOKENIZER_FILE), json.as_bytes())?;
        }
        Ok(shape)
    })
}

/// An error of a shape with the keys of config.json.
fn in_its_words(error: &ShapeError) -> String {
    let key = |dimension| match dimension {
        "n_layers" => "n_layer",
        "d_model" => "n_embd",
        "n_heads" => "n_head",
        "d_ff" => "n_inner",
        "n_vocab" => "vocab_size",
        "context_len" => "n_positions",
        other => other,
    };
    match error {
        ShapeError::Heads { n_heads, d_model } => {
            format!("n_head = {n_heads}: must divide n_embd = {d_model}")
        }
        ShapeError::Size { dimension, size, most } => {
            format!("{} = {size}: must be from 1 to {most}", key(dimension))
        }
        ShapeError::Text => error.to_string(),
    }
}

/// A key of config.json, or why it is of no use.
fn value_of<T: DeserializeOwned>(
    config: &Value,
    key: &str,
    default: Option<T>,
) -> Result<T, String> {
    match (config.get(key), default) {
        (Some(value), _) => {
            T::deserialize(value).map_err(|error| format!("{key} = {value}: {error}"))
        }
        (None, Some(default)) => Ok(default),
        (None, None) => Err(format!("{key} is missing")),
    }
}

/// The model's shape and the epsilon of its norms.
fn read_config(path: &Path) -> Result<(GptShape, f64), StateError> {
    let text = fs::read(path).map_err(StateError::io(path))?;
    let config = serde_json::from_slice(&text).map_err(|error| error.to_string());
    config
        .and_then(|config| described_by(&config))
        .map_err(|reason| StateError::broken(path, reason))
}

/// What the keys say that say what model it is; the others say how it is trained or sampled from.
fn described_by(config: &Value) -> Result<(GptShape, f64), String> {
    let due = |key: &str, default: Value, due: &[Value]| {
        let found = config.get(key).unwrap_or(&default);
        if due.contains(found) {
            return Ok(());
        }
        let due: Vec<String> = due.iter().map(Value::to_string).collect();
        Err(format!("{key} = {found}: models of this program have {}", due.join(" or ")))
    };
    due("model_type", Value::Null, &["gpt2".into()])?;
    let activations = ["gelu_new".into(), "gelu_pytorch_tanh".into()];
    due("activation_function", "gelu_new".into(), &activations)?;
    due("scale_attn_weights", true.into(), &[true.into()])?;
    due("scale_attn_by_inverse_layer_idx", false.into(), &[false.into()])?;
    due("add_cross_attention", false.into(), &[false.into()])?;
    let norm_eps = value_of(config, "layer_norm_epsilon", Some(1e-5))?;
    if !(0.0..=1.0).contains(&norm_eps) {
        return Err(format!("layer_norm_epsilon = {norm_eps}: must be from 0 to 1"));
    }
    let size = |key| value_of::<usize>(config, key, None);
    let d_model = size("n_embd")?;
    let d_ff = value_of::<Option<usize>>(config, "n_inner", Some(None))?;
    let shape = GptShape {
        d_ff: d_ff.unwrap_or(d_model.saturating_mul(4)),
        n_vocab: size("vocab_size")?,
        context_len: size("n_positions")?,
        tied_head: value_of(config, "tie_word_embeddings", Some(true))?,
        ..GptShape::gpt2(size("n_layer")?, d_model, size("n_head")?)
    };
    shape.check().map_err(|error| in_its_words(&error))?;
    Ok((shape, norm_eps))
}

/// A file of tensors that hold the parameters of a model.
struct Source<'a> {
    path: &'a Path,
    file: SafeTensors<'a>,
    names: BTreeMap<ParamId, String>,
}

impl<'a> Source<'a> {
    /// Finds every parameter, and nothing else.
    fn new(path: &'a Path, bytes: &'a [u8], shape: &GptShape) -> Result<Self, StateError> {
        let broken = |reason: String| StateError::broken(path, reason);
        let file = SafeTensors::deserialize(bytes);
        let file = file.map_err(|error| {
            broken(format!("{} bytes that are no whole safetensors file: {error}", bytes.len()))
        })?;
        let mut left: BTreeSet<String> = file.names().into_iter().map(str::to_string).collect();
        let mut names = BTreeMap::new();
        for id in inventory(shape) {
            let full = id.to_string();
            let short = full.trim_start_matches("transformer.").to_string();
            let name = [&full, &short].into_iter().find(|name| left.remove(*name)).cloned();
            let name = name.ok_or_else(|| broken(format!("tensor {full} is missing")))?;
            let view = file.tensor(&name).map_err(|error| broken(format!("{name}: {error}")))?;
            let (found, due) = (view.shape(), id.role.dims(shape));
            if found != due {
                return Err(broken(format!("{name} is {found:?} where {due:?} is due")));
            }
            names.insert(id, name);
        }
        // Masks, which older versions wrote along, and a tied head written twice.
        let known = |name: &str| {
            name.ends_with(".attn.bias")
                || name.ends_with(".attn.masked_bias")
                || (shape.tied_head && name == "lm_head.weight")
        };
        match left.iter().find(|name| !known(name)) {
            Some(name) => Err(broken(format!("tensor {name} does not belong to a {shape} GPT"))),
            None => Ok(Self { path, file, names }),
        }
    }

    fn tensor(&self, id: ParamId) -> Result<Vec<f32>, StateError> {
        let name = &self.names[&id];
        let broken = |reason: String| StateError::broken(self.path, format!("{name} {reason}"));
        let view = self.file.tensor(name).map_err(|error| broken(format!("is broken: {error}")))?;
        let bytes = view.data();
        let of_two = |read: fn([u8; 2]) -> f32| -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|two| read(*two)).collect()
        };
        let elements = match view.dtype() {
            Dtype::F32 => {
                bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
            }
            Dtype::F16 => of_two(|two| f16::from_le_bytes(two).to_f32()),
            Dtype::BF16 => of_two(|two| bf16::from_le_bytes(two).to_f32()),
            other => return Err(broken(format!("is {other}: must be F32, F16 or BF16"))),
        };
        match elements.iter().find(|x| !x.is_finite()) {
            Some(x) => Err(broken(format!("holds {x}: must be finite"))),
            None => Ok(elements),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::tests::small_state;
    use crate::{Checkpoint, CheckpointStore, ExportedTokenizer, export};

    static NEVER: AtomicBool = AtomicBool::new(false);

    use safetensors::tensor::{TensorView, serialize_to_file};

    /// A folder with an exported model, and the state that it comes from.
    fn exported(tied_head: bool) -> (tempfile::TempDir, TrainingState) {
        let folder = tempfile::tempdir().unwrap();
        let mut state = small_state(tied_head);
        state.constants.output_multiplier = 1.7;
        let store = CheckpointStore::open(&folder.path().join("checkpoints")).unwrap();
        let checkpoint = Checkpoint::open(&store.save(&state, 1, None).unwrap()).unwrap();
        let tokenizer = ExportedTokenizer { json: Some("{}"), end_of_text: None };
        export(&checkpoint, tokenizer, &folder.path().join("hf"), &NEVER).unwrap();
        (folder, state)
    }

    fn bytes(state: &TrainingState) -> ImportedVocabulary<'static> {
        ImportedVocabulary { name: "bytes", n_vocab: state.shape.n_vocab, json: Some("{}") }
    }

    /// What a parameter is when the output multiplier has been folded in.
    fn folded(state: &TrainingState, id: ParamId, x: f32) -> f32 {
        use crate::ParamRole::{FinalNormBias, FinalNormGain};
        let last_norm = matches!(id.role, FinalNormGain | FinalNormBias);
        if last_norm { (f64::from(x) * state.constants.output_multiplier) as f32 } else { x }
    }

    #[test]
    fn what_was_exported_comes_back() {
        for tied_head in [true, false] {
            let (folder, state) = exported(tied_head);
            let target = folder.path().join("imported");
            let shape =
                import(&folder.path().join("hf"), bytes(&state), "test", &target, &NEVER).unwrap();
            assert_eq!(shape, state.shape);
            let found = Checkpoint::open(&target).unwrap().load().unwrap();
            assert_eq!(found.position, Position::default());
            assert_eq!(found.origin.vocabulary, "bytes");
            let constants = ModelConstants { output_multiplier: 1.0, ..state.constants };
            assert_eq!(found.constants, constants);
            for (id, due) in &state.params {
                let scaled: Vec<f32> = due.data.iter().map(|x| folded(&state, *id, *x)).collect();
                assert_eq!(found.params[id].data, scaled, "{id}");
                assert!(found.moments.second[id].data.iter().all(|x| *x == 0.0), "{id}");
            }
            assert_eq!(fs::read_to_string(target.join(TOKENIZER_FILE)).unwrap(), "{}");
            let again = import(&folder.path().join("hf"), bytes(&state), "test", &target, &NEVER)
                .unwrap_err();
            assert!(again.to_string().contains("is there already"), "{again}");
        }
    }

    /// Writes the model of a folder again, its tensors changed.
    fn rewrite(
        folder: &Path,
        change: impl Fn(&str, Vec<usize>, Vec<u8>) -> Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    ) {
        let path = folder.join(MODEL_FILE);
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors: Vec<_> = file
            .tensors()
            .into_iter()
            .flat_map(|(name, view)| change(&name, view.shape().to_vec(), view.data().to_vec()))
            .collect();
        let views = tensors.iter().map(|(name, dtype, dims, data)| {
            (name.as_str(), TensorView::new(*dtype, dims.clone(), data).unwrap())
        });
        serialize_to_file(views.collect::<Vec<_>>(), None, &path).unwrap();
    }

    #[test]
    fn half_precision_short_names_and_masks_are_read() {
        let (folder, state) = exported(true);
        let hf = folder.path().join("hf");
        rewrite(&hf, |name, dims, data| {
            let narrow = |four: &[u8; 4]| {
                let x = f32::from_le_bytes(*four);
                if name.contains("mlp") {
                    f16::from_f32(x).to_le_bytes()
                } else {
                    bf16::from_f32(x).to_le_bytes()
                }
            };
            let dtype = if name.contains("mlp") { Dtype::F16 } else { Dtype::BF16 };
            let data = data.as_chunks().0.iter().flat_map(narrow).collect();
            let short = name.trim_start_matches("transformer.").to_string();
            let mask = short
                .ends_with("c_attn.bias")
                .then(|| (short.replace("c_attn.bias", "bias"), Dtype::U8, vec![1, 1], vec![1]));
            [(short, dtype, dims, data)].into_iter().chain(mask).collect()
        });
        let target = folder.path().join("imported");
        import(&hf, bytes(&state), "test", &target, &NEVER).unwrap();
        let found = Checkpoint::open(&target).unwrap().load().unwrap();
        for (id, due) in &state.params {
            for (found, due) in found.params[id].data.iter().zip(&due.data) {
                let due = folded(&state, *id, *due);
                assert!((found - due).abs() <= due.abs() * 0.004 + 1e-7, "{id}: {found} for {due}");
            }
        }
    }

    #[test]
    fn what_is_no_gpt2_is_refused_by_name() {
        let refusal = |spoil: &dyn Fn(&Path)| {
            let (folder, state) = exported(true);
            let hf = folder.path().join("hf");
            spoil(&hf);
            let target = folder.path().join("imported");
            let error =
                import(&hf, bytes(&state), "test", &target, &NEVER).unwrap_err().to_string();
            assert!(!target.exists());
            error
        };
        let config = |key: &'static str, value: serde_json::Value| {
            refusal(&|hf: &Path| {
                let path = hf.join(CONFIG_FILE);
                let mut config: serde_json::Value =
                    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                config[key] = value.clone();
                fs::write(&path, config.to_string()).unwrap();
            })
        };
        for (key, value) in [
            ("model_type", "llama".into()),
            ("activation_function", "relu".into()),
            ("scale_attn_weights", false.into()),
            ("add_cross_attention", true.into()),
            ("vocab_size", 5.into()),
            ("layer_norm_epsilon", (-1.0).into()),
            ("layer_norm_epsilon", "small".into()),
            ("n_layer", "4".into()),
            ("scale_attn_weights", serde_json::Value::Null),
        ] {
            let error = config(key, value);
            assert!(error.contains("config.json") && error.contains(key), "{error}");
        }
        let llama = refusal(&|hf: &Path| {
            fs::write(hf.join(CONFIG_FILE), r#"{"model_type": "llama", "hidden_size": 8}"#)
                .unwrap();
        });
        assert!(
            llama.contains(r#"model_type = "llama": models of this program have "gpt2""#),
            "{llama}"
        );
        let infinite = refusal(&|hf: &Path| {
            rewrite(hf, |name, dims, mut data| {
                if name.contains("h.0.mlp.c_fc.weight") {
                    data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
                }
                vec![(name.to_string(), Dtype::F32, dims, data)]
            });
        });
        assert!(infinite.contains("c_fc.weight holds inf"), "{infinite}");
        let error = config("n_head", 5.into());
        assert!(error.contains("n_head = 5: must divide n_embd = "), "{error}");
        let error = config("n_inner", 17.into());
        assert!(error.contains("c_fc") && error.contains("is due"), "{error}");
        let without = refusal(&|hf: &Path| {
            rewrite(hf, |name, dims, data| {
                let kept = name != "transformer.ln_f.bias";
                kept.then(|| (name.to_string(), Dtype::F32, dims, data)).into_iter().collect()
            });
        });
        assert!(without.contains("transformer.ln_f.bias is missing"), "{without}");
        let more = refusal(&|hf: &Path| {
            rewrite(hf, |name, dims, data| {
                let twice = (format!("{name}.lora"), Dtype::F32, dims.clone(), data.clone());
                vec![(name.to_string(), Dtype::F32, dims, data), twice]
            });
        });
        assert!(more.contains("does not belong"), "{more}");
    }
}
