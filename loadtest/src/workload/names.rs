//! Texts for data: names, and letters that hardly compress.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The 64 letters of random texts: six random bits choose one.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Letters from one random number of 64 bits.
const LETTERS_PER_NUMBER: usize = 10;

/// First names, with some beyond ASCII.
pub(super) const FIRST_NAMES: [&str; 32] = [
    "Aisha", "Amir", "Anna", "Ben", "Chiara", "Chloé", "Daniel", "Elif", "Emma", "Finn", "Hana",
    "Ida", "Jan", "João", "Kofi", "Lars", "Leila", "Lin", "Mia", "Mateo", "Nia", "Noah", "Olga",
    "Paul", "Priya", "Ravi", "Sofía", "Tom", "Uma", "Viktor", "Yuki", "Zoë",
];
/// Last names.
pub(super) const LAST_NAMES: [&str; 32] = [
    "Adeyemi",
    "Andersson",
    "Bauer",
    "Brown",
    "Chen",
    "Costa",
    "Dubois",
    "Fischer",
    "García",
    "Haddad",
    "Hansen",
    "Ito",
    "Jones",
    "Kaya",
    "Kowalski",
    "Kumar",
    "López",
    "Mensah",
    "Meyer",
    "Murphy",
    "Nguyen",
    "Novák",
    "O'Brien",
    "Park",
    "Petrov",
    "Rossi",
    "Silva",
    "Singh",
    "Smith",
    "Tanaka",
    "Weber",
    "Yılmaz",
];

/// Text that hardly compresses, and is the same for the same seed.
pub(super) fn letters(seed: u64, count: usize) -> String {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut text = String::with_capacity(count + LETTERS_PER_NUMBER);
    while text.len() < count {
        let number: u64 = random.random();
        let letter = |at: usize| char::from(LETTERS[(number >> (6 * at)) as usize % LETTERS.len()]);
        text.extend((0..LETTERS_PER_NUMBER).map(letter));
    }
    text.truncate(count);
    text
}
