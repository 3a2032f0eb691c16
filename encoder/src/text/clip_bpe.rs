//! CLIP's byte-pair encoding as open_clip's `SimpleTokenizer` does it, on cleaned text. The vocabulary and the merges come
//! from the model's `tokenizer.json`; its normalizer and pre-tokenizer are Hugging Face's and are not used here.
//!
//! Most words of a caption are one token: those are found in a table that is filled at load, so that encoding takes no
//! lock and keeps nothing. The rest is merged on the spot.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use serde::Deserialize;

use super::unicode::class;
use super::{SpecialTokens, Tokens};

/// Special tokens around every text.
pub(super) const FRAME: usize = 2;

const END_OF_WORD: &str = "</w>";
/// Text that stands for the two special tokens, as open_clip and as Hugging Face write them.
const START_NAMES: [&str; 2] = ["<start_of_text>", "<|startoftext|>"];
const END_NAMES: [&str; 2] = ["<end_of_text>", "<|endoftext|>"];
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// A multiplicative hash. The tables are filled once, from the model; captions are only looked up, so that nobody can
/// choose what collides.
#[derive(Default)]
struct FastHasher(u64);

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (slot, &byte) in word.iter_mut().zip(chunk) {
                *slot = byte;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<FastHasher>>;

/// What is read of `tokenizer.json`.
#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// A vocabulary of CLIP's kind in which something is missing.
#[derive(Debug, thiserror::Error)]
#[error("its merges need the token {missing:?}, which its vocabulary does not hold")]
pub(super) struct BrokenVocabulary {
    missing: String,
}

#[derive(Clone, Copy)]
struct Merged {
    rank: u32,
    id: u32,
}

/// The vocabulary, ready to encode.
pub(super) struct ClipBpe {
    /// Token of each byte, within a word and at its end.
    inner: [u32; 256],
    last: [u32; 256],
    merges: FastMap<u64, Merged>,
    words: FastMap<Box<[u8]>, u32>,
    start: u32,
    end: u32,
}

impl ClipBpe {
    /// `None` when the file is no byte-pair encoding whose words end as CLIP's do.
    pub(super) fn from_json(json: &[u8]) -> Result<Option<Self>, BrokenVocabulary> {
        let is_clip = |file: &File| file.model.end_of_word_suffix.as_deref() == Some(END_OF_WORD);
        match serde_json::from_slice::<File>(json).ok().filter(is_clip) {
            Some(file) => Self::build(&file).map(Some),
            None => Ok(None),
        }
    }

    fn build(File { model, added_tokens }: &File) -> Result<Self, BrokenVocabulary> {
        let id = |token: &str| {
            let added = || added_tokens.iter().find(|added| added.content == token).map(|added| added.id);
            model.vocab.get(token).copied().or_else(added)
        };
        let any =
            |names: [&str; 2]| names.into_iter().find_map(id).ok_or_else(|| BrokenVocabulary { missing: names[1].to_owned() });
        let mut bpe = Self {
            inner: byte_tokens(&model.vocab, "")?,
            last: byte_tokens(&model.vocab, END_OF_WORD)?,
            merges: read_merges(model)?,
            words: FastMap::default(),
            start: any(START_NAMES)?,
            end: any(END_NAMES)?,
        };
        bpe.words = bpe.whole_words(&model.vocab);
        Ok(bpe)
    }

    /// Words that end up as one token.
    fn whole_words(&self, vocab: &HashMap<String, u32>) -> FastMap<Box<[u8]>, u32> {
        let byte_of: HashMap<char, u8> = (0..=255).map(|byte| (byte_symbol(byte), byte)).collect();
        let mut merged = Vec::new();
        let mut words = FastMap::default();
        for (token, &id) in vocab {
            let Some(word) = token.strip_suffix(END_OF_WORD) else { continue };
            let Some(bytes) = word.chars().map(|c| byte_of.get(&c).copied()).collect::<Option<Vec<u8>>>() else { continue };
            merged.clear();
            self.merge(&bytes, &mut merged);
            if merged == [id] {
                words.insert(bytes.into_boxed_slice(), id);
            }
        }
        words
    }

    /// Start, the text's tokens, end; cut to `context` with the end in the last place.
    pub(super) fn encode(&self, cleaned: &str, context: usize, specials: SpecialTokens) -> Tokens {
        let room = context.saturating_sub(1);
        let mut ids = Vec::with_capacity(context.min(cleaned.len().saturating_add(FRAME)));
        ids.push(self.start);
        let mut rest = cleaned;
        while let Some((piece, tail)) = next_piece(rest, specials) {
            self.encode_piece(piece, specials, &mut ids);
            rest = tail;
            // What lies behind a full context can change nothing: pieces do not join.
            if ids.len() > room {
                break;
            }
        }
        let truncated = ids.len() > room;
        ids.truncate(room);
        ids.push(self.end);
        Tokens { ids, truncated }
    }

    fn encode_piece(&self, piece: &str, specials: SpecialTokens, ids: &mut Vec<u32>) {
        match (specials, piece) {
            (SpecialTokens::AsReference, "<start_of_text>") => ids.push(self.start),
            (SpecialTokens::AsReference, "<end_of_text>") => ids.push(self.end),
            _ => match self.words.get(piece.as_bytes()) {
                Some(&id) => ids.push(id),
                None => self.merge(piece.as_bytes(), ids),
            },
        }
    }

    /// Merges the bytes of one word, lowest rank first, the leftmost among equals.
    fn merge(&self, word: &[u8], ids: &mut Vec<u32>) {
        let Some((&last, front)) = word.split_last() else { return };
        let tokens = front.iter().map(|&byte| self.inner[usize::from(byte)]).chain([self.last[usize::from(last)]]);
        let mut chain = Chain::new(tokens);
        let mut queue: BinaryHeap<Reverse<(u32, usize, u64)>> = BinaryHeap::with_capacity(word.len());
        let found = |chain: &Chain, at: usize| {
            let pair = chain.pair(at)?;
            Some(Reverse((self.merges.get(&pair)?.rank, at, pair)))
        };
        queue.extend((0..word.len()).filter_map(|at| found(&chain, at)));
        while let Some(Reverse((_, at, pair))) = queue.pop() {
            // An entry whose pair is gone was overtaken by another merge.
            let (true, Some(merged)) = (chain.pair(at) == Some(pair), self.merges.get(&pair)) else { continue };
            let before = chain.join(at, merged.id);
            queue.extend(before.into_iter().chain([at]).filter_map(|at| found(&chain, at)));
        }
        ids.extend(chain.tokens());
    }
}

/// A word's tokens as a list in which neighbours can be joined.
struct Chain {
    links: Vec<Link>,
}

#[derive(Clone, Copy)]
struct Link {
    token: u32,
    /// Position of the neighbours; `None` at the ends. A joined link is skipped by both.
    before: Option<usize>,
    next: Option<usize>,
    joined: bool,
}

impl Chain {
    fn new(tokens: impl Iterator<Item = u32>) -> Self {
        let mut links: Vec<Link> = tokens
            .enumerate()
            .map(|(at, token)| Link { token, before: at.checked_sub(1), next: Some(at + 1), joined: false })
            .collect();
        if let Some(last) = links.last_mut() {
            last.next = None;
        }
        Self { links }
    }

    /// The token at `at` and its right neighbour, as a key of the merge table.
    fn pair(&self, at: usize) -> Option<u64> {
        let link = self.links.get(at).filter(|link| !link.joined)?;
        Some(pair_key(link.token, self.links.get(link.next?)?.token))
    }

    /// Joins the token at `at` with its right neighbour; gives the position on the left.
    fn join(&mut self, at: usize, token: u32) -> Option<usize> {
        let gone = self.links[at].next?;
        let behind = self.links[gone].next;
        self.links[gone].joined = true;
        self.links[at] = Link { token, next: behind, ..self.links[at] };
        if let Some(behind) = behind {
            self.links[behind].before = Some(at);
        }
        self.links[at].before
    }

    fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.links.iter().filter(|link| !link.joined).map(|link| link.token)
    }
}

fn pair_key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The visible character that byte-level vocabularies write for a byte.
fn byte_symbol(byte: u8) -> char {
    let is_visible = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_visible(byte) {
        return char::from(byte);
    }
    let earlier = (0..byte).filter(|&b| !is_visible(b)).count();
    u32::try_from(earlier).ok().and_then(|n| char::from_u32(0x100 + n)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte_tokens(vocab: &HashMap<String, u32>, suffix: &str) -> Result<[u32; 256], BrokenVocabulary> {
    let mut tokens = [0; 256];
    for (byte, slot) in (0..=255).zip(&mut tokens) {
        let name = format!("{}{suffix}", byte_symbol(byte));
        *slot = *vocab.get(&name).ok_or(BrokenVocabulary { missing: name })?;
    }
    Ok(tokens)
}

fn read_merges(model: &Model) -> Result<FastMap<u64, Merged>, BrokenVocabulary> {
    let id = |token: &str| model.vocab.get(token).copied().ok_or_else(|| BrokenVocabulary { missing: token.to_owned() });
    let mut merges = FastMap::default();
    for (merge, rank) in model.merges.iter().zip(0..) {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
            Merge::Line(line) => line.split_once(' ').ok_or_else(|| BrokenVocabulary { missing: line.clone() })?,
        };
        let merged = Merged { rank, id: id(&format!("{left}{right}"))? };
        merges.insert(pair_key(id(left)?, id(right)?), merged);
    }
    Ok(merges)
}

/// open_clip's pattern: special tokens, contractions, runs of letters, single numbers, runs of anything else but space.
/// Gives the next piece and what follows it.
fn next_piece(text: &str, specials: SpecialTokens) -> Option<(&str, &str)> {
    let mut rest = text;
    loop {
        let first = rest.chars().next()?;
        let length = match (first, class(first)) {
            ('<', _) if specials == SpecialTokens::AsReference => special_length(rest).or_else(|| Some(run_length(rest))),
            ('\'', _) => literal_length(rest, &CONTRACTIONS).or_else(|| Some(run_length(rest))),
            (_, kind) if kind.is_letter() => Some(length_while(rest, |c| class(c).is_letter())),
            (_, kind) if kind.is_number() => Some(first.len_utf8()),
            (_, kind) if kind.is_other() => Some(run_length(rest)),
            _ => None,
        };
        match length {
            Some(length) => return rest.split_at_checked(length),
            None => rest = rest.get(first.len_utf8()..)?,
        }
    }
}

fn special_length(text: &str) -> Option<usize> {
    literal_length(text, &[START_NAMES[0], END_NAMES[0]])
}

fn run_length(text: &str) -> usize {
    length_while(text, |c| class(c).is_other())
}

fn length_while(text: &str, matches: impl Fn(char) -> bool) -> usize {
    text.char_indices().find(|&(_, c)| !matches(c)).map_or(text.len(), |(at, _)| at)
}

/// The length in `text` of the first of `literals` that it starts with, case ignored; the long s counts as an s.
fn literal_length(text: &str, literals: &[&str]) -> Option<usize> {
    let fold = |c: char| if c == 'ſ' { 's' } else { c.to_ascii_lowercase() };
    literals.iter().find_map(|literal| {
        let mut length = 0;
        let mut chars = text.chars();
        for wanted in literal.chars() {
            let c = chars.next().filter(|&c| fold(c) == wanted)?;
            length += c.len_utf8();
        }
        Some(length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, specials: SpecialTokens) -> Vec<&str> {
        let mut found = Vec::new();
        let mut rest = text;
        while let Some((piece, tail)) = next_piece(rest, specials) {
            found.push(piece);
            rest = tail;
        }
        found
    }

    #[test]
    fn text_is_cut_as_open_clip_cuts_it() {
        let cut = |text| pieces(text, SpecialTokens::AsReference);
        assert_eq!(cut("it's 42 don't!? o'clock"), ["it", "'s", "4", "2", "don", "'t", "!?", "o", "'", "clock"]);
        assert_eq!(cut("a<end_of_text>b"), ["a", "<end_of_text>", "b"]);
        assert_eq!(cut("x\u{345}! \u{345}"), ["x", "!"]);
        assert_eq!(cut("!!\u{345}a"), ["!!", "a"]);
    }

    #[test]
    fn neutralised_special_tokens_are_ordinary_text() {
        let cut = pieces("a<end_of_text>b", SpecialTokens::Neutralised);
        assert_eq!(cut, ["a", "<", "end", "_", "of", "_", "text", ">", "b"]);
    }
}
