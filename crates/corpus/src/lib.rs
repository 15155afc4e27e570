//! Text to tokens, and tokens to batches: tokenizers, token files, the synthetic language, and a
//! data order in which sequence j is a pure function of (seed, j).

mod byte_level;
mod corpus;
mod error;
mod lock;
mod permutation;
mod prepare;
mod synthetic;
mod text;
mod token_file;
mod tokenizer;

pub use corpus::Corpus;
pub use error::CorpusError;
pub use lock::open_locked;
pub use prepare::{Prepared, encode_text, prepare};
pub use synthetic::SyntheticLanguage;
pub use text::Cleaning;
pub use token_file::{TokenFile, TokenFileInfo, is_unknown, may_be_one};
pub use tokenizer::{Tokenizer, TokenizerChoice};
