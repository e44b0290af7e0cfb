//! Standard output of what is there for reading. Whoever reads may have seen enough before the end, as `head` has: nothing
//! failed then and nobody need be told. An output that cannot be written, such as one on a full disk, is a failure.

use std::io::{self, BufWriter, Write};

/// Large enough that a list of a million lines is not a million writes.
const BUFFER: usize = 64 * 1024;

/// Lets `write` print to standard output, and sees that all of it arrives or that nobody reads it any more.
///
/// Not for a new secret, which its reader must have got.
///
/// # Errors
///
/// As writing, but for a reader who is gone.
pub(super) fn for_reading(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    to(io::stdout().lock(), write)
}

fn to(out: impl Write, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    if_read(write(&mut out).and_then(|()| out.flush()))
}

/// What writing came to, where a reader who is gone is no failure.
pub(super) fn if_read(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// What the operator is told of an output that cannot be written.
pub(super) fn unwritten(error: &io::Error) -> String {
    format!("standard output cannot be written: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then fails in this way.
    struct Ends(usize, io::ErrorKind);

    impl Write for Ends {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match bytes.len().min(self.0) {
                0 => Err(self.1.into()),
                some => {
                    self.0 -= some;
                    Ok(some)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_is_gone_is_no_failure_and_ends_the_printing() {
        let mut printed = 0;
        let done = to(Ends(200_000, io::ErrorKind::BrokenPipe), |out| {
            for _ in 0..1_000_000 {
                out.write_all(b"a line of some length\n")?;
                printed += 1;
            }
            Ok(())
        });
        assert!(done.is_ok() && printed < 20_000, "{printed}");
    }

    #[test]
    fn an_output_that_cannot_be_written_is_a_failure() {
        for room in [0, 3] {
            let done = to(Ends(room, io::ErrorKind::StorageFull), |out| out.write_all(b"words\n"));
            assert_eq!(done.map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull), "{room}");
        }
    }
}
