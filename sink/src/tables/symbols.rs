//! Strings by number: what a row of `flows` carries instead of text.

use hashbrown::HashTable;
use twox_hash::XxHash3_64;

use super::pages::ABSENT;

/// A string of [`Symbols`], or none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Symbol(pub(super) u32);

impl Symbol {
    /// No string: null in the table.
    pub const NONE: Self = Self(ABSENT);
}

impl Default for Symbol {
    fn default() -> Self {
        Self::NONE
    }
}

/// Gives equal strings equal numbers, until it is emptied.
#[derive(Debug, Default)]
pub struct Symbols {
    text: String,
    ends: Vec<usize>,
    index: HashTable<u32>,
    generation: u64,
}

impl Symbols {
    /// The number of a string.
    pub fn intern(&mut self, text: &str) -> Symbol {
        let Self { text: all, ends, index, .. } = self;
        let hash = hash(text);
        if let Some(found) = index.find(hash, |n| slice(all, ends, *n) == text) {
            return Symbol(*found);
        }
        let number = ends.len() as u32;
        all.push_str(text);
        ends.push(all.len());
        index.insert_unique(hash, number, |n| self::hash(slice(all, ends, *n)));
        Symbol(number)
    }

    /// The number of an IPv4 address as text.
    pub fn dotted(&mut self, bits: u32) -> Symbol {
        self.intern(dotted(bits, &mut [0; 15]))
    }

    /// The number of a string that may be absent.
    pub fn maybe(&mut self, text: Option<&str>) -> Symbol {
        text.map_or(Symbol::NONE, |t| self.intern(t))
    }

    /// The string of a number; empty for none.
    #[must_use]
    pub fn text(&self, symbol: Symbol) -> &str {
        slice(&self.text, &self.ends, symbol.0)
    }

    /// Changes when the numbers given so far lose their meaning, which happens only between two pushes of a writer:
    /// whoever keeps numbers compares before each push.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many strings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of text.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn empty(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.index.clear();
        self.generation += 1;
    }
}

fn hash(text: &str) -> u64 {
    XxHash3_64::oneshot(text.as_bytes())
}

fn dotted(bits: u32, out: &mut [u8; 15]) -> &str {
    let mut at = 0;
    for (n, octet) in bits.to_be_bytes().into_iter().enumerate() {
        if n > 0 {
            out[at] = b'.';
            at += 1;
        }
        for (digit, needed) in [(octet / 100, octet >= 100), (octet / 10 % 10, octet >= 10), (octet % 10, true)] {
            if needed {
                out[at] = b'0' + digit;
                at += 1;
            }
        }
    }
    std::str::from_utf8(&out[..at]).unwrap_or_default()
}

fn slice<'a>(all: &'a str, ends: &[usize], number: u32) -> &'a str {
    let number = number as usize;
    let Some(end) = ends.get(number) else { return "" };
    let start = if number == 0 { 0 } else { ends[number - 1] };
    &all[start..*end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_equal_numbers() {
        let mut symbols = Symbols::default();
        let names = ["a", "", "b", "a", "", "long name"];
        let numbers = names.map(|n| symbols.intern(n));
        assert_eq!(numbers[0], numbers[3]);
        assert_eq!(numbers[1], numbers[4]);
        assert_eq!(symbols.len(), 4);
        assert_eq!(numbers.map(|n| symbols.text(n).to_owned()), names);
        assert_eq!((symbols.maybe(None), symbols.text(Symbol::NONE)), (Symbol::NONE, ""));
        let before = symbols.generation();
        symbols.empty();
        assert_ne!(symbols.generation(), before);
        let again = symbols.intern("b");
        assert_eq!(symbols.text(again), "b");
    }

    #[test]
    fn addresses_are_written_as_usual() {
        for bits in [0, 0x0100_0a63, 0xffff_ffff, 0x0a00_0001, 0x6409_0a00, 0xc0a8_6465] {
            assert_eq!(dotted(bits, &mut [0; 15]), std::net::Ipv4Addr::from(bits).to_string());
        }
    }
}
