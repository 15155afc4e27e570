mod bpe;
mod words;

use crate::byte_level::Words;
use crate::text::Cleaning;
use crate::{CorpusError, TokenFileInfo};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{DecoderWrapper, ModelWrapper, PreTokenizerWrapper, Tokenizer as Trained};
use xxhash_rust::xxh3::xxh3_64;

/// What GPT-2 puts between documents.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Most tokens that a BPE is trained for.
const LARGEST_BPE: usize = 1_000_000;

/// Which tokenizer to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// Each byte is a token.
    Bytes,
    /// Byte-level BPE with this many tokens, trained on the text.
    Bpe(usize),
    /// GPT-2's, from a folder with encoder.json and vocab.bpe.
    Gpt2(PathBuf),
    /// A tokenizer.json file.
    File(PathBuf),
}

impl FromStr for TokenizerChoice {
    type Err = CorpusError;

    fn from_str(text: &str) -> Result<Self, CorpusError> {
        let wrong = |what: &str| {
            CorpusError::Choice(format!(
                "tokenizer = \"{text}\": {what}; use bytes, bpe:SIZE, gpt2:FOLDER or the path of a \
                 tokenizer.json"
            ))
        };
        if text == "bytes" {
            Ok(Self::Bytes)
        } else if let Some(size) = text.strip_prefix("bpe:") {
            let size = size.parse().map_err(|_| wrong("SIZE is a number of tokens"))?;
            if !(257..=LARGEST_BPE).contains(&size) {
                return Err(wrong("SIZE is from 257 to 1000000"));
            }
            Ok(Self::Bpe(size))
        } else if let Some(folder) = text.strip_prefix("gpt2:") {
            Ok(Self::Gpt2(folder.into()))
        } else if Path::new(text).extension().is_some_and(|extension| extension == "json") {
            Ok(Self::File(text.into()))
        } else {
            Err(wrong("unknown"))
        }
    }
}

/// Turns text into tokens and back.
pub struct Tokenizer {
    kind: Kind,
}

enum Kind {
    Bytes,
    Words(usize),
    /// `by_words`: it splits text as GPT-2 does and encodes the words one by one.
    Trained {
        trained: Box<Trained>,
        by_words: bool,
    },
}

impl Tokenizer {
    /// One token a byte.
    pub fn bytes() -> Self {
        Self { kind: Kind::Bytes }
    }

    /// One token a word of the synthetic language, which is written in made-up syllables.
    pub fn words(n_words: usize) -> Self {
        Self { kind: Kind::Words(n_words) }
    }

    /// The chosen tokenizer; `texts` are what a BPE is trained on. While it is, `watch` is told now and then the bytes of text read
    /// so far, and may break it off: what is under way then ends with the process.
    ///
    /// # Errors
    /// Files that are missing or not what they should be, text that is not UTF-8; `watch` broke it off.
    pub fn choose(
        choice: &TokenizerChoice,
        texts: &[PathBuf],
        cleaning: Cleaning,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, CorpusError> {
        match choice {
            TokenizerChoice::Bytes => Ok(Self::bytes()),
            TokenizerChoice::Bpe(n_vocab) => bpe::watch_training(*n_vocab, texts, cleaning, watch),
            TokenizerChoice::Gpt2(folder) => bpe::gpt2(folder),
            TokenizerChoice::File(path) => Self::from_file(path),
        }
    }

    /// The tokenizer that a token file was made with, where it is known.
    ///
    /// # Errors
    /// A tokenizer.json that cannot be read.
    pub fn of_token_file(path: &Path, info: &TokenFileInfo) -> Result<Option<Self>, CorpusError> {
        let json = TokenFileInfo::tokenizer_path_for(path);
        if info.vocabulary == "bytes" {
            Ok(Some(Self::bytes()))
        } else if json.exists() {
            let found = Self::from_file(&json)?;
            let (due, vocabulary) = (&info.vocabulary, found.vocabulary()?);
            if !crate::is_unknown(due) && *due != vocabulary {
                let reason = format!("its vocabulary is {vocabulary}, the token file's {due}");
                return Err(CorpusError::file(&json, reason));
            }
            Ok(Some(found))
        } else {
            Ok(None)
        }
    }

    /// A tokenizer.json file.
    ///
    /// # Errors
    /// An unreadable file, or one that is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, CorpusError> {
        let text = std::fs::read(path).map_err(CorpusError::io(path))?;
        let trained = Trained::from_bytes(text)
            .map_err(|error| CorpusError::file(path, format!("not a tokenizer.json: {error}")))?;
        Ok(Self::trained(trained))
    }

    fn trained(mut trained: Trained) -> Self {
        // A corpus is neither cut nor filled up, whatever the file was made for.
        trained.with_padding(None);
        let _ = trained.with_truncation(None);
        // Dropout makes the tokens of a text another draw each time.
        if let ModelWrapper::BPE(bpe) = trained.get_model()
            && bpe.dropout.is_some()
        {
            let mut always = bpe.clone();
            always.dropout = None;
            trained.with_model(always);
        }
        let splits_as_gpt2 = matches!(
            trained.get_pre_tokenizer(),
            Some(PreTokenizerWrapper::ByteLevel(level)) if level.use_regex && !level.add_prefix_space
        );
        let plain_additions =
            trained.get_added_tokens_decoder().values().any(|token| !token.special);
        let by_words = splits_as_gpt2 && trained.get_normalizer().is_none() && !plain_additions;
        Self { kind: Kind::Trained { trained: Box::new(trained), by_words } }
    }

    /// Tokens in the vocabulary: the largest number and one.
    pub fn n_vocab(&self) -> usize {
        match &self.kind {
            Kind::Bytes => 256,
            Kind::Words(n_words) => *n_words,
            Kind::Trained { trained, .. } => {
                trained.get_vocab(true).values().max().map_or(0, |largest| *largest as usize + 1)
            }
        }
    }

    /// Whether text that the vocabulary does not have is left out of the tokens without a trace: a BPE with neither a token for the
    /// unknown nor tokens for single bytes.
    pub fn leaves_text_out(&self) -> bool {
        let Kind::Trained { trained, .. } = &self.kind else { return false };
        let ModelWrapper::BPE(bpe) = trained.get_model() else { return false };
        let every_byte =
            || ByteLevel::alphabet().iter().all(|c| trained.token_to_id(&c.to_string()).is_some());
        bpe.unk_token.is_none() && !bpe.byte_fallback && !every_byte()
    }

    /// Bytes of text that sequences of tokens are; special tokens are none. `None` where tokens do not tell: words of the synthetic
    /// language, and a vocabulary that is not of bytes, whose decoder adds or drops blanks.
    pub fn n_bytes<'a>(&self, mut sequences: impl Iterator<Item = &'a [u32]>) -> Option<u64> {
        let trained = match &self.kind {
            Kind::Bytes => return Some(sequences.map(|tokens| tokens.len() as u64).sum()),
            Kind::Words(_) => return None,
            Kind::Trained { trained, .. } => trained,
        };
        if !matches!(trained.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return None;
        }
        // A byte-level vocabulary writes each byte as one character, so that characters cut in two count too.
        let special = trained.get_added_tokens_decoder();
        let of_token = |token: &u32| {
            let is_special = special.get(token).is_some_and(|added| added.special);
            Some(if is_special { 0 } else { trained.id_to_token(*token)?.chars().count() as u64 })
        };
        sequences.try_fold(0, |sum, tokens| {
            let bytes: Option<u64> = tokens.iter().map(of_token).sum();
            Some(sum + bytes?)
        })
    }

    /// What identifies the vocabulary: two tokenizers with the same string give the same numbers
    /// the same meaning.
    ///
    /// # Errors
    /// The tokenizer library cannot write the tokenizer.
    pub fn vocabulary(&self) -> Result<String, CorpusError> {
        Ok(match &self.kind {
            Kind::Bytes => "bytes".to_string(),
            Kind::Words(n_words) => format!("words:{n_words}"),
            Kind::Trained { .. } => {
                let json = self.to_json()?.unwrap_or_default();
                format!("tokenizer:{}:{:016x}", self.n_vocab(), xxh3_64(json.as_bytes()))
            }
        })
    }

    /// The tokenizer of a vocabulary whose tokens are numbers themselves, bytes or words of a language, so that no tokenizer.json
    /// tells them.
    pub fn plain(vocabulary: &str) -> Option<Self> {
        if vocabulary == "bytes" {
            return Some(Self::bytes());
        }
        let n_words = vocabulary.strip_prefix("words:")?.split(' ').next()?;
        n_words.parse().ok().map(Self::words)
    }

    /// The tokenizer.json, for tokenizers that have one.
    ///
    /// # Errors
    /// The tokenizer library cannot write the tokenizer.
    pub fn to_json(&self) -> Result<Option<String>, CorpusError> {
        match &self.kind {
            Kind::Trained { trained, .. } => trained.to_string(false).map(Some).map_err(library),
            Kind::Bytes | Kind::Words(_) => Ok(None),
        }
    }

    /// Whether text must be UTF-8 and be cut between words.
    pub fn reads_words(&self) -> bool {
        !matches!(self.kind, Kind::Bytes)
    }

    /// The token that separates documents, if the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        match &self.kind {
            Kind::Trained { trained, .. } => trained.token_to_id(END_OF_TEXT),
            Kind::Bytes | Kind::Words(_) => None,
        }
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// Text that is not UTF-8, a word that the synthetic language does not have.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, CorpusError> {
        let utf8 = || {
            std::str::from_utf8(text)
                .map_err(|error| CorpusError::Choice(format!("the text is not UTF-8: {error}")))
        };
        match &self.kind {
            Kind::Bytes => Ok(text.iter().map(|byte| u32::from(*byte)).collect()),
            Kind::Words(n_words) => utf8()?
                .split_whitespace()
                .map(|word| words::number_of_word(word, *n_words))
                .collect(),
            Kind::Trained { trained, by_words: true } => encode_words(trained, utf8()?),
            Kind::Trained { trained, by_words: false } => {
                Ok(trained.encode_fast(utf8()?, false).map_err(library)?.get_ids().to_vec())
            }
        }
    }

    /// The text of tokens; bytes that are not UTF-8 become replacement characters.
    ///
    /// # Errors
    /// The tokenizer library refuses.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, CorpusError> {
        match &self.kind {
            Kind::Bytes => {
                let bytes: Vec<u8> = tokens.iter().map(|token| *token as u8).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Kind::Words(_) => {
                let words: Vec<String> =
                    tokens.iter().map(|token| words::word_of_number(*token as usize)).collect();
                Ok(words.join(" "))
            }
            Kind::Trained { trained, .. } => trained.decode(tokens, false).map_err(library),
        }
    }
}

/// Encodes each different word once. In this way text that spells a special token is plain text,
/// too.
fn encode_words(trained: &Trained, text: &str) -> Result<Vec<u32>, CorpusError> {
    let mut known: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut tokens = Vec::with_capacity(text.len() / 3);
    for word in Words::of(text) {
        let encoded = match known.entry(word) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(new) => {
                new.insert(trained.encode_fast(word, false).map_err(library)?.get_ids().to_vec())
            }
        };
        tokens.extend_from_slice(encoded);
    }
    Ok(tokens)
}

fn library(error: tokenizers::Error) -> CorpusError {
    CorpusError::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::models::bpe::{BPE, BpeBuilder};

    const TEXT: &str = "It was the best of times, it was the worst of times.\n\n\
                        It was the age of wisdom, it was the age of foolishness.\n";

    fn trained_on(text: &str) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, text).unwrap();
        let go_on = &mut |_| ControlFlow::Continue(());
        Tokenizer::choose(&TokenizerChoice::Bpe(300), &[path], Cleaning::default(), go_on).unwrap()
    }

    #[test]
    fn choices_are_read_and_bad_ones_explained() {
        assert_eq!("bytes".parse::<TokenizerChoice>().unwrap(), TokenizerChoice::Bytes);
        assert_eq!("bpe:4096".parse::<TokenizerChoice>().unwrap(), TokenizerChoice::Bpe(4096));
        for bad in ["byte", "bpe:x", "bpe:12", "gpt3"] {
            let message = bad.parse::<TokenizerChoice>().unwrap_err().to_string();
            assert!(message.contains("use bytes, bpe:SIZE"), "{message}");
        }
    }

    #[test]
    fn a_trained_bpe_is_shorter_than_bytes_and_survives_its_file() {
        let tokenizer = trained_on(TEXT);
        let tokens = tokenizer.encode(TEXT.as_bytes()).unwrap();
        assert!(tokens.len() < TEXT.len() / 2);
        assert_eq!(tokenizer.decode(&tokens).unwrap(), TEXT);
        assert_eq!(tokenizer.n_bytes([&tokens[..]].into_iter()), Some(TEXT.len() as u64));
        let accented = "Unseen wörds, 1859! \u{1F40D}";
        let encoded = tokenizer.encode(accented.as_bytes()).unwrap();
        assert_eq!(tokenizer.n_bytes(encoded.chunks(3)), Some(accented.len() as u64));
        // Decoders of pieces that are no bytes add blanks, or drop them.
        let Kind::Trained { trained, .. } = trained_on(TEXT).kind else { unreachable!() };
        let mut pieces = *trained;
        pieces.with_decoder(Some(tokenizers::decoders::metaspace::Metaspace::default()));
        let n_bytes = Tokenizer::trained(pieces).n_bytes([&tokens[..]].into_iter());
        assert_eq!(n_bytes, None);
        assert_eq!(Tokenizer::words(500).n_bytes([&[1, 2][..]].into_iter()), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, tokenizer.to_json().unwrap().unwrap()).unwrap();
        let again = Tokenizer::from_file(&path).unwrap();
        assert_eq!(again.vocabulary().unwrap(), tokenizer.vocabulary().unwrap());
        assert_eq!(again.encode(TEXT.as_bytes()).unwrap(), tokens);
    }

    #[test]
    fn text_without_tokens_is_told_of() {
        assert!(!trained_on(TEXT).leaves_text_out() && !Tokenizer::bytes().leaves_text_out());
        let vocabulary = [("a".to_string(), 0), ("b".to_string(), 1)];
        let build = |bpe: BpeBuilder| Tokenizer::trained(Trained::new(bpe.build().unwrap()));
        let of_letters = || BPE::builder().vocab_and_merges(vocabulary.clone(), vec![]);
        let tokenizer = build(of_letters());
        assert!(tokenizer.leaves_text_out());
        assert_eq!(tokenizer.encode(b"a cab").unwrap(), [0, 0, 1]);
        assert!(!build(of_letters().unk_token("a".into())).leaves_text_out());
        assert!(!build(of_letters().byte_fallback(true)).leaves_text_out());
    }

    #[test]
    fn dropout_of_a_file_is_not_for_corpora() {
        let Kind::Trained { trained, .. } = trained_on(TEXT).kind else { unreachable!() };
        let whole = trained.encode_fast(TEXT, false).unwrap().get_ids().to_vec();
        let ModelWrapper::BPE(bpe) = trained.get_model() else { unreachable!() };
        let mut dropping = bpe.clone();
        dropping.dropout = Some(0.9);
        let mut random = *trained;
        random.with_model(dropping);
        assert_ne!(random.encode_fast(TEXT, false).unwrap().get_ids(), whole);
        assert_eq!(Tokenizer::trained(random).encode(TEXT.as_bytes()).unwrap(), whole);
    }

    #[test]
    fn truncation_and_padding_of_a_file_are_not_for_corpora() {
        let Kind::Trained { trained, .. } = trained_on(TEXT).kind else { unreachable!() };
        let whole = trained.encode_fast(TEXT, false).unwrap().get_ids().to_vec();
        let mut cutting = *trained;
        let truncation = tokenizers::TruncationParams { max_length: 4, ..Default::default() };
        cutting.with_truncation(Some(truncation)).unwrap();
        let strategy = tokenizers::PaddingStrategy::Fixed(50);
        let padding = tokenizers::PaddingParams { strategy, ..Default::default() };
        cutting.with_padding(Some(padding));
        assert_eq!(Tokenizer::trained(cutting).encode(TEXT.as_bytes()).unwrap(), whole);
    }

    #[test]
    fn encoding_by_words_is_what_the_library_encodes() {
        let tokenizer = trained_on(TEXT);
        let Kind::Trained { trained, by_words: true } = &tokenizer.kind else {
            panic!("a byte-level BPE is encoded by words");
        };
        let text = TEXT.repeat(3) + "  Unseen wörds, 1859!\t\n 'tis  ";
        let whole = trained.encode_fast(text.as_str(), false).unwrap();
        assert_eq!(tokenizer.encode(text.as_bytes()).unwrap(), whole.get_ids());
    }

    #[test]
    fn a_cut_between_words_changes_no_token() {
        let tokenizer = trained_on(TEXT);
        let whole = tokenizer.encode(TEXT.as_bytes()).unwrap();
        for (cut, _) in TEXT.match_indices([' ', '\n']) {
            if !TEXT.as_bytes()[cut.max(1) - 1].is_ascii_alphabetic() {
                continue;
            }
            let (left, right) = TEXT.split_at(cut);
            let mut parts = tokenizer.encode(left.as_bytes()).unwrap();
            parts.extend(tokenizer.encode(right.as_bytes()).unwrap());
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn bytes_and_words_come_back(bytes in "\\PC{0,40}", numbers in prop::collection::vec(0u32..500, 0..20)) {
            let tokenizer = Tokenizer::bytes();
            let tokens = tokenizer.encode(bytes.as_bytes()).unwrap();
            prop_assert_eq!(tokenizer.decode(&tokens).unwrap(), bytes);
            let words = Tokenizer::words(500);
            let text = words.decode(&numbers).unwrap();
            prop_assert_eq!(words.encode(text.as_bytes()).unwrap(), numbers);
        }
    }
}
