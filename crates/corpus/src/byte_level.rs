//! GPT-2's splitting of text into words, which byte-level BPE then encodes one by one.

use regex::Regex;
use std::sync::LazyLock;

/// GPT-2's pattern (Radford et al. 2019, encoder.py) without its look-ahead `\s+(?!\S)`, which
/// [`Words`] adds: the last blank of a run goes with the word that follows.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
        .expect("the pattern is a constant")
});

/// The words of a text; together they are the text.
pub struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    pub fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let found = PATTERN.find_at(self.text, self.at)?;
        let word = found.as_str();
        let mut end = found.end();
        if end < self.text.len()
            && word.ends_with(char::is_whitespace)
            && let Some((last, _)) = word.char_indices().next_back().filter(|(last, _)| *last > 0)
        {
            end = found.start() + last;
        }
        self.at = end;
        Some(&self.text[found.start()..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn library(text: &str) -> Vec<String> {
        let mut split = PreTokenizedString::from(text);
        ByteLevel::new(false, true, true).pre_tokenize(&mut split).unwrap();
        split
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(_, (start, end), _)| text[start..end].to_string())
            .collect()
    }

    #[test]
    fn words_keep_the_blank_before_them() {
        let words: Vec<&str> = Words::of("It's  the\n\n best,  1859 ").collect();
        assert_eq!(words, ["It", "'s", " ", " the", "\n\n", " best", ",", " ", " 1859", " "]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn words_are_those_of_the_tokenizers_library(
            text in "([ \\n\\r\\t]{0,3}('(s|t|re|ve|m|ll|d|x)|[a-zA-Zéß中]{1,4}|[0-9²½]{1,3}|[.,;!?'…-]{1,3}|\\u{a0}|\\u{3000}|\\PC)){0,8}[ \\n]{0,3}",
        ) {
            prop_assert_eq!(Words::of(&text).collect::<Vec<_>>(), library(&text));
        }
    }
}
