//! Read buffers, lent by the thread. An idle connection holds none: one is borrowed when bytes are there and given back
//! when they are used up, so that ten thousand silent connections cost no buffer at all (design section 3).

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// Size of a buffer as first borrowed, in bytes: a request head and a small body.
pub(crate) const SMALL: usize = 16 * 1024;
/// Size it grows to once a read filled it: bulk data moves with fewer system calls.
pub(crate) const LARGE: usize = 64 * 1024;
/// Most buffers of each size that a thread keeps for later.
const KEPT: usize = 64;

thread_local! {
    // The one exception to "no global state" (decision 39): spare buffers of this thread, small and large.
    static SPARE: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Bytes read and not yet used, in a borrowed buffer; without bytes it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that are there.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// Marks the first `count` bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Gives the memory back if nothing is in it.
    pub(crate) fn release(&mut self) {
        if self.start == self.end && !self.memory.is_empty() {
            give_back(std::mem::take(&mut self.memory));
            self.start = 0;
            self.end = 0;
        }
    }

    /// Appends bytes; for what was read elsewhere.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len(), usize::MAX);
        let end = self.end + bytes.len();
        if let Some(room) = self.memory.get_mut(self.end..end) {
            room.copy_from_slice(bytes);
            self.end = end;
        }
    }

    /// Splits off what follows the first `count` bytes, which stay here with the memory.
    pub(crate) fn split_rest(&mut self, count: usize) -> Self {
        let mut rest = Self::default();
        if let Some(bytes) = self.memory.get(self.start + count..self.end)
            && !bytes.is_empty()
        {
            rest.push(bytes);
        }
        self.end = self.end.min(self.start + count);
        rest
    }

    /// Reads more bytes behind those that are there, with at most `limit` in all. `Ready(Ok(0))` is the end of the
    /// stream, or no room under `limit`. On `Pending` an empty buffer is given back.
    pub(crate) fn poll_read_more<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room(1, limit);
        let bound = self.memory.len().min(self.start.saturating_add(limit));
        let Some(room) = self.memory.get_mut(self.end..bound).filter(|room| !room.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        let mut read = ReadBuf::new(room);
        let outcome = Pin::new(stream).poll_read(cx, &mut read);
        let count = read.filled().len();
        let filled = read.remaining() == 0;
        match outcome {
            Poll::Ready(Ok(())) => {
                self.end += count;
                if filled && self.memory.len() < LARGE {
                    self.grow(LARGE);
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                self.release();
                Poll::Pending
            }
        }
    }

    /// Makes room for `count` more bytes, moving or growing as needed, but never beyond `limit` bytes in all.
    fn make_room(&mut self, count: usize, limit: usize) {
        if self.memory.is_empty() {
            self.memory = borrow(if count > SMALL { LARGE } else { SMALL });
        }
        if self.memory.len() - self.end >= count {
            return;
        }
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = self.end.saturating_add(count);
        if self.memory.len() < wanted && self.memory.len() < limit {
            self.grow(wanted.next_multiple_of(SMALL));
        }
    }

    fn grow(&mut self, size: usize) {
        let mut larger = borrow(size);
        if let (Some(to), Some(from)) = (larger.get_mut(..self.end - self.start), self.memory.get(self.start..self.end))
        {
            to.copy_from_slice(from);
        }
        self.end -= self.start;
        self.start = 0;
        give_back(std::mem::replace(&mut self.memory, larger));
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            give_back(std::mem::take(&mut self.memory));
        }
    }
}

fn borrow(size: usize) -> Vec<u8> {
    let class = usize::from(size > SMALL);
    let spare =
        if size > LARGE { None } else { SPARE.with(|spare| spare.try_borrow_mut().ok()?.get_mut(class)?.pop()) };
    spare.unwrap_or_else(|| {
        vec![
            0;
            if size > LARGE {
                size
            } else if class == 1 {
                LARGE
            } else {
                SMALL
            }
        ]
    })
}

fn give_back(memory: Vec<u8>) {
    let class = match memory.len() {
        SMALL => 0,
        LARGE => 1,
        _ => return,
    };
    // A thread that is ending may have no pool any more: then the memory is simply freed.
    let _ = SPARE.try_with(|spare| {
        if let Ok(mut spare) = spare.try_borrow_mut()
            && let Some(kept) = spare.get_mut(class)
            && kept.len() < KEPT
        {
            kept.push(memory);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut Buffer, mut source: &[u8], limit: usize) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut total = 0;
        loop {
            match buffer.poll_read_more(&mut source, limit, &mut cx) {
                Poll::Ready(Ok(0)) => return total,
                Poll::Ready(Ok(n)) => total += n,
                other => unreachable!("{other:?}"),
            }
        }
    }

    #[test]
    fn reads_up_to_the_limit_and_no_further() {
        for limit in [1, SMALL - 1, SMALL, SMALL + 1, LARGE, LARGE + 5000] {
            let mut buffer = Buffer::default();
            assert_eq!(read(&mut buffer, &vec![7; 300_000], limit), limit, "{limit}");
            assert_eq!(buffer.bytes().len(), limit);
        }
    }

    #[test]
    fn consuming_moves_and_keeps_the_rest() {
        let mut buffer = Buffer::default();
        buffer.push(b"hello world");
        buffer.consume(6);
        assert_eq!(buffer.bytes(), b"world");
        let rest = buffer.split_rest(2);
        assert_eq!((buffer.bytes(), rest.bytes()), (&b"wo"[..], &b"rld"[..]));
    }

    #[test]
    fn an_empty_buffer_holds_no_memory() {
        let mut buffer = Buffer::default();
        buffer.push(b"x");
        buffer.consume(1);
        buffer.release();
        assert_eq!(buffer.memory.capacity(), 0);
    }
}
