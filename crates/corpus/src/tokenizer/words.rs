//! How words of the synthetic language are spelt.

use crate::CorpusError;

const CONSONANTS: &[u8] = b"bdfghjklmnprstvz";
const VOWELS: &[u8] = b"aeiou";
const N_SYLLABLES: usize = CONSONANTS.len() * VOWELS.len();

/// The spelling of a word of the synthetic language: its number in base 80, a syllable a digit.
pub(super) fn word_of_number(number: usize) -> String {
    let digit = number % N_SYLLABLES;
    let syllable = [CONSONANTS[digit / VOWELS.len()], VOWELS[digit % VOWELS.len()]];
    let last = syllable.map(char::from).iter().collect::<String>();
    match number / N_SYLLABLES {
        0 => last,
        rest => word_of_number(rest) + &last,
    }
}

pub(super) fn number_of_word(word: &str, n_words: usize) -> Result<u32, CorpusError> {
    let digit = |syllable: &[u8]| {
        let place =
            |letters: &[u8], at: usize| letters.iter().position(|l| syllable.get(at) == Some(l));
        Some(place(CONSONANTS, 0)? * VOWELS.len() + place(VOWELS, 1)?)
    };
    let number = word.as_bytes().chunks(2).try_fold(0usize, |number, syllable| {
        number.checked_mul(N_SYLLABLES)?.checked_add(digit(syllable)?)
    });
    // A word has no leading zeros.
    let is_it = |number: &usize| *number < n_words && word_of_number(*number) == word;
    number.filter(is_it).map(|number| number as u32).ok_or_else(|| {
        CorpusError::Choice(format!(
            "\"{word}\" is not a word of the synthetic language; its words are like \"{}\" and \"{}\"",
            word_of_number(0),
            word_of_number(n_words - 1),
        ))
    })
}
