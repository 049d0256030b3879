//! Where the tokens of a piece of JSON are: one pass, 64 bytes at a step, without a branch per token.
//!
//! A token is a bracket, colon or comma outside of strings, an opening quote, or the first byte of anything else outside
//! of strings (numbers, words, and what has no place there). So what stands right before the token that follows a string
//! is its closing quote, and what [`super::fast`] sees as a sequence of tokens is the whole text.
//!
//! A piece begins where a value does, and ends before the first *odd* byte: a control character, white space outside of
//! strings, a bad escape, a backslash outside of strings, or what is not UTF-8. All before it is checked; a value with
//! something odd in it is left to [`super::scan`], which takes white space and says of faults what they are.

use super::marks::{Isa, Job, Lanes, ROOM, Token};
use super::quoted;
use crate::prefetch::prefetch;

/// Text indexed at a step, in bytes: it and its tokens stay in the second-level cache.
const PIECE: usize = 32 << 10;

/// How far ahead text is asked for, in bytes.
const AHEAD: usize = 8 << 10;

/// The tokens of a piece of text. Its memory is used again.
#[derive(Clone, Debug)]
pub(super) struct Index<'a> {
    isa: Isa,
    /// The tokens, their places counted from the piece's first byte; `count` are in use.
    tokens: Vec<Token>,
    count: usize,
    /// The token that is probably asked for next.
    pub next: usize,
    /// Where the piece begins in the text.
    pub from: usize,
    /// The piece.
    pub piece: &'a str,
    /// Where its first backslash is; its length if there is none.
    pub first_escape: usize,
}

impl<'a> Index<'a> {
    /// An empty index; `tokens` is memory of an earlier one.
    pub(super) fn new(isa: Isa, tokens: Vec<Token>) -> Self {
        Self { isa, tokens, count: 0, next: 0, from: 0, piece: "", first_escape: 0 }
    }

    /// Its memory, for another one.
    pub(super) fn into_memory(self) -> Vec<Token> {
        self.tokens
    }

    /// The tokens.
    #[inline]
    pub(super) fn tokens(&self) -> &[Token] {
        self.tokens.get(..self.count).unwrap_or_default()
    }

    /// The number of the token that stands at `from` in the text, if the piece has it.
    #[inline]
    pub(super) fn token_at(&self, from: usize) -> Option<usize> {
        let place = from.checked_sub(self.from).filter(|place| *place < self.piece.len())? as u32;
        let tokens = self.tokens.get(self.next..self.count)?;
        let skipped = tokens.iter().position(|token| token.place() >= place)?;
        (tokens.get(skipped)?.place() == place).then_some(self.next + skipped)
    }

    /// True if a walk that failed at this token may have failed because the piece ends.
    pub(super) fn is_last(&self, token: usize) -> bool {
        // No step looks further ahead.
        token + 4 >= self.count
    }

    /// Indexes the piece of `text` that begins at `from`, where no string is open.
    pub(super) fn fill(&mut self, text: &'a [u8], from: usize) {
        let text = text.get(from..).unwrap_or_default();
        let piece = &text[..text.len().min(PIECE)];
        // One token a byte at most.
        let room = piece.len() + ROOM;
        if self.tokens.len() < room {
            self.tokens.resize(room, Token::default());
        }
        let found = self.isa.run(Find { text, piece, tokens: &mut self.tokens });
        self.count = found.count;
        (self.from, self.next) = (from, 0);
        let clean = &piece[..found.end];
        self.piece = match found.wide {
            // SAFETY: every byte of the blocks up to `end` was found to be below 0x80, so they are UTF-8.
            #[allow(unsafe_code)]
            false => unsafe { std::str::from_utf8_unchecked(clean) },
            true => match std::str::from_utf8(clean) {
                Ok(clean) => clean,
                Err(error) => std::str::from_utf8(&clean[..error.valid_up_to()]).unwrap_or_default(),
            },
        };
        self.first_escape = found.first_escape.min(self.piece.len());
        if self.piece.len() < found.end {
            self.count = self.tokens().partition_point(|token| (token.place() as usize) < self.piece.len());
        }
    }
}

/// What was found of a piece.
struct Found {
    count: usize,
    /// Where the first odd byte is. (What is not UTF-8 is not looked for.)
    end: usize,
    first_escape: usize,
    /// Something before `end` is beyond ASCII.
    wide: bool,
}

struct Find<'t> {
    /// From the start of the piece to the end of the text.
    text: &'t [u8],
    piece: &'t [u8],
    tokens: &'t mut [Token],
}

impl Job for Find<'_> {
    type Done = Found;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Found {
        let Self { text, piece, tokens } = self;
        let mut found = Found { count: 0, end: piece.len(), first_escape: usize::MAX, wide: false };
        // All ones if the block begins inside of a string; if it begins with an escaped byte; if the byte before it is
        // part of a number, word or the like.
        let (mut inside, mut escaped, mut plain) = (0u64, false, 0u64);
        let mut padded = [b' '; 64];
        let mut at = 0;
        while at < piece.len() {
            let rest = &piece[at..];
            let block = rest.first_chunk::<64>().unwrap_or_else(|| {
                padded[..rest.len()].copy_from_slice(rest);
                &padded
            });
            // The processor looks ahead by itself, but not from page to page.
            prefetch(text, at + AHEAD);
            let marks = lanes.marks(block);
            let mut quotes = marks.quotes;
            let (mut odd, mut wide, mut not_outside) = (0, 0, marks.spaces);
            if marks.rare != 0 || escaped {
                let rare = lanes.rare(block);
                (odd, wide) = (rare.controls, rare.wide);
                if rare.backslashes != 0 || escaped {
                    found.first_escape = found.first_escape.min(at);
                    odd |= escapes(text, at, rare.backslashes, &mut quotes, &mut escaped);
                    not_outside |= rare.backslashes;
                }
            }
            // From an opening quote to before the closing one.
            let strings = lanes.parity(quotes) ^ inside;
            inside = ((strings as i64) >> 63) as u64;
            let outside = !(strings | quotes);
            let structure = marks.structure & !strings;
            let other = outside & !marks.structure;
            odd |= other & not_outside;
            let mut starts = structure | (quotes & strings) | (other & !(other << 1 | plain));
            plain = other >> 63;
            if odd != 0 {
                let before = (odd & odd.wrapping_neg()) - 1;
                (starts, wide) = (starts & before, wide & before);
                found.end = (at + odd.trailing_zeros() as usize).min(piece.len());
            }
            found.wide |= wide != 0;
            // More than there are may be written: the next block writes over the surplus.
            let Some(out) = tokens.get_mut(found.count..).and_then(<[Token]>::first_chunk_mut::<ROOM>) else { break };
            lanes.note(starts, at as u32, block, out);
            found.count += starts.count_ones() as usize;
            if odd != 0 {
                break;
            }
            at += 64;
        }
        found
    }
}

/// Walks through the escapes of a block: checks them, takes escaped quotes out of `quotes`, and returns the faulty ones.
/// `escaped` tells from block to block whether the next one begins with the second byte of an escape.
#[inline(never)]
fn escapes(text: &[u8], at: usize, backslashes: u64, quotes: &mut u64, escaped: &mut bool) -> u64 {
    let mut left = backslashes;
    if std::mem::take(escaped) {
        *quotes &= !1;
        left &= !1;
    }
    let mut faults = 0;
    while left != 0 {
        let bit = left & left.wrapping_neg();
        if quoted::escape(text, at + left.trailing_zeros() as usize).is_err() {
            faults |= bit;
        }
        // What the backslash escapes is neither a quote nor a backslash.
        left &= !(bit | bit << 1);
        *quotes &= !(bit << 1);
        *escaped = bit >> 63 == 1;
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The piece and its tokens, byte by byte.
    fn by_definition(text: &[u8]) -> (usize, Vec<u32>) {
        let (mut tokens, mut string, mut plain) = (Vec::new(), false, false);
        let mut at = 0;
        let valid = |to: usize| std::str::from_utf8(&text[..to]).map_or_else(|e| e.valid_up_to(), |_| to);
        while at < text.len().min(PIECE) {
            let c = text[at];
            match (string, c) {
                (_, 0..0x20) | (false, b' ' | b'\\') => break,
                (true, b'\\') => match quoted::escape(text, at) {
                    Ok(_) => at += 1,
                    Err(_) => break,
                },
                (_, b'"') => {
                    if !string {
                        tokens.push(at as u32);
                    }
                    string = !string;
                }
                (false, b'{' | b'}' | b'[' | b']' | b':' | b',') => tokens.push(at as u32),
                (false, _) if !plain => tokens.push(at as u32),
                _ => {}
            }
            plain = !string && !b"{}[]:,\"".contains(&c);
            at += 1;
        }
        let end = valid(at.min(text.len()).min(PIECE));
        tokens.retain(|t| (*t as usize) < end);
        (end, tokens)
    }

    fn compare(text: &[u8]) {
        let (end, tokens) = by_definition(text);
        for isa in Isa::all() {
            let mut index = Index::new(isa, vec![Token::new(77, 7); 3]);
            let before = [b"xyz", text].concat();
            index.fill(&before, 3);
            assert_eq!(index.piece.as_bytes(), &text[..end], "{isa:?} {}", text.escape_ascii());
            let tokens: Vec<Token> = tokens.iter().map(|at| Token::new(*at, text[*at as usize])).collect();
            assert_eq!(index.tokens(), tokens, "{isa:?} {}", text.escape_ascii());
            let first = index.piece.find('\\').unwrap_or(end);
            assert!(index.first_escape <= first && (first == end || index.first_escape + 64 > first));
        }
    }

    #[test]
    fn tokens_of_every_kind_in_every_place() {
        for shift in 0..70 {
            let pad = "x".repeat(shift);
            for text in [
                format!(r#"{{"{pad}":["a\\\"b\u00e9",-1.5e3,true,null,{{}}],"é東":"\\"}}"#),
                format!(r#"{{"{pad}\":[]"}}{{"#),
                format!(r#"{{"{pad}\x":1}}"#),
                format!(r#"{{"{pad}\u12"#),
                format!(r#"{{"{pad}":\"a"}}"#),
                format!("{{\"{pad}\": 1}}"),
                format!("{{\"{pad}\n\":1}}"),
                format!("{{\"{pad}\"x\"y\"12[}}:"),
                format!("{{\"{pad}\\\\\\\\\\\\\":\"\\\\\"}}"),
            ] {
                compare(text.as_bytes());
            }
            compare(&[pad.as_bytes(), b"\"\xff\"{}"].concat());
            compare(&[pad.as_bytes(), b"\"\xc3\"{}"].concat());
        }
        compare("[1,".repeat(PIECE).as_bytes());
        compare(format!("\"{}\"", "é".repeat(PIECE)).as_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_are_indexed_alike(bytes in proptest::collection::vec(prop_oneof![
            4 => prop::sample::select(br#"{}[]:,"\"#.to_vec()), 6 => 0x21u8..0x7f, 1 => any::<u8>()], 0..300)) {
            compare(&bytes);
        }
    }
}
