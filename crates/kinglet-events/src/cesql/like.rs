//! Patterns of LIKE: `%` is any run, `_` exactly one byte, `\%` and `\_` are themselves.

use memchr::memmem;

/// A pattern, cut at its `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Between the runs; one piece when there is no run.
    pieces: Box<[Piece]>,
}

/// Bytes and single wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    bytes: Box<[u8]>,
    /// Places in `bytes` that stand for any byte, ascending.
    any: Box<[usize]>,
}

impl Piece {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it stands at the beginning of a text that is long enough.
    fn fits(&self, text: &[u8]) -> bool {
        if self.any.is_empty() {
            return text.starts_with(&self.bytes);
        }
        let mut any = self.any.iter().peekable();
        self.bytes
            .iter()
            .zip(text)
            .enumerate()
            .all(|(at, (own, other))| any.next_if_eq(&&at).is_some() || own == other)
    }

    /// Where it first stands in a text. `work` is what may still be compared.
    fn find(&self, text: &[u8], work: &mut usize) -> Result<Option<usize>, OutOfWork> {
        if self.any.is_empty() {
            spend(work, text.len())?;
            return Ok(memmem::find(text, &self.bytes));
        }
        for at in 0..(text.len() + 1).saturating_sub(self.len()) {
            spend(work, self.len())?;
            if self.fits(&text[at..]) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

/// The evaluation compared more bytes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfWork;

/// Counts bytes that are handled.
pub(super) fn spend(work: &mut usize, bytes: usize) -> Result<(), OutOfWork> {
    *work = work.checked_sub(bytes).ok_or(OutOfWork)?;
    Ok(())
}

impl Pattern {
    pub(super) fn new(pattern: &[u8]) -> Self {
        let mut pieces = Vec::new();
        let (mut bytes, mut any) = (Vec::new(), Vec::new());
        let mut rest = pattern;
        while let [first, after @ ..] = rest {
            rest = after;
            match (first, after) {
                (b'\\', [escaped @ (b'%' | b'_'), after @ ..]) => {
                    bytes.push(*escaped);
                    rest = after;
                }
                (b'_', _) => {
                    any.push(bytes.len());
                    bytes.push(b'_');
                }
                (b'%', _) => pieces.push(piece(&mut bytes, &mut any)),
                (other, _) => bytes.push(*other),
            }
        }
        pieces.push(piece(&mut bytes, &mut any));
        Self {
            pieces: pieces.into_boxed_slice(),
        }
    }

    /// Whether all of a text is of the pattern.
    pub(super) fn matches(&self, text: &[u8], work: &mut usize) -> Result<bool, OutOfWork> {
        let (first, others) = match &*self.pieces {
            [] => return Ok(text.is_empty()),
            [only] => return Ok(only.len() == text.len() && only.fits(text)),
            [first, others @ ..] => (first, others),
        };
        let Some((last, middle)) = others.split_last() else {
            return Ok(false);
        };
        if text.len() < first.len() + last.len() || !first.fits(text) {
            return Ok(false);
        }
        let end = text.len() - last.len();
        if !last.fits(&text[end..]) {
            return Ok(false);
        }
        // The leftmost place of each is as good as any other.
        let mut rest = &text[first.len()..end];
        for piece in middle {
            match piece.find(rest, work)? {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn piece(bytes: &mut Vec<u8>, any: &mut Vec<usize>) -> Piece {
    Piece {
        bytes: std::mem::take(bytes).into_boxed_slice(),
        any: std::mem::take(any).into_boxed_slice(),
    }
}
