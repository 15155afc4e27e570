//! Models for programs that read Hugging Face's GPT-2.

use crate::checkpoint::{MODEL_FILE, TensorSink, write_folder, write_tensors};
use crate::file::{sync_folder, write_synced};
use crate::{Checkpoint, ParamId, ParamRole, StateError, TensorGroup};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const CONFIG_FILE: &str = "config.json";
/// A model's tokenizer, in its folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// What an exported model is to know of its tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportedTokenizer<'a> {
    /// The tokenizer.json, where there is one.
    pub json: Option<&'a str>,
    /// The token between documents, where there is one.
    pub end_of_text: Option<u32>,
}

/// Writes a checkpoint's model as `GPT2LMHeadModel` of Hugging Face's transformers reads it: model.safetensors, config.json and the
/// tokenizer.json, in a folder that appears only once it is whole. The factor on the logits goes into the last norm, so that the
/// logits are the same. Returns the bytes of the tensors' file.
///
/// # Errors
/// Heads that do not share the width, which that model does not know; the folder exists; a file cannot be read or written.
pub fn export(
    checkpoint: &Checkpoint,
    tokenizer: ExportedTokenizer<'_>,
    target: &Path,
    stop: &AtomicBool,
) -> Result<u64, StateError> {
    let info = checkpoint.info();
    let shape = &info.shape;
    if shape.d_attention() != shape.d_model {
        let reason = format!(
            "{shape} has {} heads of {}; GPT-2 in transformers has heads of d_model / n_heads alone, here of {}",
            shape.n_heads,
            shape.d_head,
            shape.d_model as f64 / shape.n_heads as f64,
        );
        return Err(StateError::broken(checkpoint.path(), reason));
    }
    checkpoint.reject_extra_tensors()?;
    let config = json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": shape.n_layers,
        "n_embd": shape.d_model,
        "n_head": shape.n_heads,
        "n_inner": shape.d_ff,
        "n_positions": shape.context_len,
        "vocab_size": shape.n_vocab,
        "layer_norm_epsilon": info.constants.norm_eps,
        "tie_word_embeddings": shape.tied_head,
        "bos_token_id": tokenizer.end_of_text,
        "eos_token_id": tokenizer.end_of_text,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "torch_dtype": "float32",
    });
    write_folder(target, &mut |folder| {
        let mut fill = |group, id: ParamId, sink: &mut TensorSink<'_>| {
            if stop.load(Ordering::Relaxed) {
                return Err(StateError::Stopped);
            }
            let mut tensor = checkpoint.tensor(group, id)?;
            if matches!(id.role, ParamRole::FinalNormGain | ParamRole::FinalNormBias) {
                let factor = info.constants.output_multiplier;
                tensor.data.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
            }
            sink.write(&tensor.data)
        };
        let path = folder.join(MODEL_FILE);
        let model = write_tensors(&path, shape, &[TensorGroup::Params], &mut fill)?;
        write_synced(&folder.join(CONFIG_FILE), format!("{config:#}\n").as_bytes())?;
        if let Some(json) = tokenizer.json {
            write_synced(&folder.join(TOKENIZER_FILE), json.as_bytes())?;
        }
        sync_folder(folder)?;
        Ok(model.bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::tests::small_state;
    use crate::{CheckpointStore, TrainingState};
    use safetensors::SafeTensors;
    use std::fs;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn saved(state: &TrainingState, folder: &Path) -> Checkpoint {
        let path = CheckpointStore::open(folder).unwrap().save(state, 1, None).unwrap();
        Checkpoint::open(&path).unwrap()
    }

    #[test]
    fn the_factor_on_the_logits_goes_into_the_last_norm_and_all_else_is_as_it_was() {
        for tied_head in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let mut state = small_state(tied_head);
            state.constants.output_multiplier = 1.7;
            let checkpoint = saved(&state, &folder.path().join("checkpoints"));
            let target = folder.path().join("exported");
            let tokenizer = ExportedTokenizer { json: Some("{}"), end_of_text: Some(3) };
            let stopped =
                export(&checkpoint, tokenizer, &target, &AtomicBool::new(true)).unwrap_err();
            assert!(matches!(stopped, StateError::Stopped), "{stopped}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is left");
            export(&checkpoint, tokenizer, &target, &NEVER).unwrap();
            let bytes = fs::read(target.join(MODEL_FILE)).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(tensors.len(), state.params.len());
            for (id, due) in &state.params {
                let found = tensors.tensor(&id.to_string()).unwrap();
                assert_eq!(found.shape(), due.dims, "{id}");
                let last_norm =
                    matches!(id.role, ParamRole::FinalNormGain | ParamRole::FinalNormBias);
                let factor = if last_norm { 1.7 } else { 1.0 };
                for (found, due) in found.data().chunks(4).zip(&due.data) {
                    let found = f32::from_le_bytes(found.try_into().unwrap());
                    assert_eq!(found, (f64::from(*due) * factor) as f32, "{id}");
                }
            }
            let config: serde_json::Value =
                serde_json::from_slice(&fs::read(target.join(CONFIG_FILE)).unwrap()).unwrap();
            assert_eq!(config["n_inner"], state.shape.d_ff);
            assert_eq!(config["tie_word_embeddings"], tied_head);
            assert_eq!(config["eos_token_id"], 3);
            assert_eq!(fs::read_to_string(target.join(TOKENIZER_FILE)).unwrap(), "{}");
            let again = export(&checkpoint, tokenizer, &target, &NEVER).unwrap_err().to_string();
            assert!(again.contains("is there already"), "{again}");
        }
    }

    #[test]
    fn heads_that_do_not_share_the_width_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = small_state(true);
        state.shape.d_head *= 2;
        for (id, tensor) in &mut state.params {
            *tensor = crate::HostTensor::zeros(id.role.dims(&state.shape));
        }
        state.moments =
            crate::Moments { first: state.params.clone(), second: state.params.clone() };
        let checkpoint = saved(&state, &folder.path().join("checkpoints"));
        let target = folder.path().join("exported");
        let refused =
            export(&checkpoint, ExportedTokenizer::default(), &target, &NEVER).unwrap_err();
        assert!(refused.to_string().contains("d_model / n_heads"), "{refused}");
        assert!(!target.exists());
    }
}
