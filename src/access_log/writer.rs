//! Lines to a slow target without waiting for it: each worker appends to a bounded buffer of its own, and one thread writes
//! them out in batches. When a buffer is full, lines are dropped and counted; the request path never blocks.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use prometheus::IntCounter;

/// Where batches go; `None` throws them away.
pub(crate) type Sink = Option<Box<dyn Write + Send>>;

/// Bytes that one worker's lines may take while the target is slow.
const MAX_BUFFER_BYTES: usize = 1024 * 1024;

/// Capacity an emptied buffer keeps.
const KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// How long the first line of a batch waits for others: fifty writes a second at most while nothing is urgent.
const LINGER: Duration = Duration::from_millis(20);

/// Pause before a target that takes nothing now (a non-blocking terminal or pipe) is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// The writing thread. It ends, after what is buffered, when this value is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
}

/// One worker's way to the writing thread.
#[derive(Debug)]
pub(crate) struct Appender {
    buffer: Arc<Mutex<Vec<u8>>>,
    max: usize,
    shared: Arc<Shared>,
    thread: Thread,
}

struct Shared {
    buffers: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    /// Something waits to be written or done. Checked before it is set, so that busy workers only read it.
    pending: AtomicBool,
    /// Do not linger.
    urgent: AtomicBool,
    orders: Mutex<Orders>,
    done: Condvar,
    dropped: IntCounter,
}

/// What the writing thread was asked to do beside writing.
#[derive(Default)]
struct Orders {
    /// Write on to this from now on.
    sink: Option<Sink>,
    /// Tickets given out by and finished for [`Writer::flush`].
    asked: u64,
    finished: u64,
    stop: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared(..)")
    }
}

impl Writer {
    /// Starts the thread. `dropped` counts lost lines.
    pub(crate) fn start(sink: Sink, dropped: IntCounter) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            buffers: Mutex::default(),
            pending: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            orders: Mutex::default(),
            done: Condvar::new(),
            dropped,
        });
        let seen = Arc::clone(&shared);
        let running = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || Output { sink, torn: false, failing: false }.run(&seen))?;
        Ok(Self { shared, thread: running.thread().clone() })
    }

    /// A new buffer of its own.
    pub(crate) fn appender(&self) -> Appender {
        self.bounded_appender(MAX_BUFFER_BYTES)
    }

    pub(crate) fn bounded_appender(&self, max: usize) -> Appender {
        let buffer = Arc::default();
        locked(&self.shared.buffers).push(Arc::clone(&buffer));
        Appender { buffer, max, shared: Arc::clone(&self.shared), thread: self.thread.clone() }
    }

    /// Everything appended before goes to the old sink, everything after to this one.
    pub(crate) fn replace_sink(&self, sink: Sink) {
        self.order(|orders| orders.sink = Some(sink));
    }

    /// Waits until everything appended before is written, `within` at most; says whether it was.
    pub(crate) fn flush(&self, within: Duration) -> bool {
        let ticket = self.order(|orders| {
            orders.asked += 1;
            orders.asked
        });
        let orders = locked(&self.shared.orders);
        let waited = self.shared.done.wait_timeout_while(orders, within, |orders| orders.finished < ticket);
        let (orders, _) = waited.unwrap_or_else(PoisonError::into_inner);
        orders.finished >= ticket
    }

    fn order<T>(&self, change: impl FnOnce(&mut Orders) -> T) -> T {
        let given = change(&mut locked(&self.shared.orders));
        self.shared.wake(&self.thread, true);
        given
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.order(|orders| orders.stop = true);
    }
}

impl Appender {
    /// Appends what `write` writes: whole lines. Nothing is written, and one line counted as lost, when the buffer is full.
    pub(crate) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = whole_lines(&self.buffer);
        let before = buffer.len();
        if before >= self.max {
            drop(buffer);
            self.shared.dropped.inc();
            return;
        }
        write(&mut buffer);
        let urgent = before < self.max / 2 && buffer.len() >= self.max / 2;
        drop(buffer);
        self.shared.wake(&self.thread, urgent);
    }
}

impl Shared {
    fn wake(&self, thread: &Thread, urgent: bool) {
        if urgent {
            self.urgent.store(true, Ordering::Release);
        }
        let was_pending = self.pending.load(Ordering::Acquire) || self.pending.swap(true, Ordering::AcqRel);
        if urgent || !was_pending {
            thread.unpark();
        }
    }

    /// Waits for work, and then for a batch of it.
    fn wait(&self) {
        while !self.pending.load(Ordering::Acquire) {
            thread::park();
        }
        if !self.urgent.load(Ordering::Acquire) {
            thread::park_timeout(LINGER);
        }
        // Both before looking: what is appended or ordered while we look sets them again.
        self.urgent.store(false, Ordering::Release);
        self.pending.store(false, Ordering::Release);
    }
}

/// The writing thread's own state.
struct Output {
    sink: Sink,
    /// The last write ended within a line.
    torn: bool,
    failing: bool,
}

impl Output {
    fn run(mut self, shared: &Shared) {
        let mut batch = Vec::new();
        loop {
            shared.wait();
            let (sink, asked, stop) = {
                let mut orders = locked(&shared.orders);
                (orders.sink.take(), orders.asked, orders.stop)
            };
            let buffers = locked(&shared.buffers).clone();
            for buffer in &buffers {
                std::mem::swap(&mut batch, &mut *whole_lines(buffer));
                self.write(&batch, &shared.dropped);
                batch.clear();
                batch.shrink_to(KEPT_BUFFER_BYTES);
            }
            drop(buffers);
            // Nobody else holds the buffer of a worker that is gone, and its last lines are written.
            locked(&shared.buffers).retain(|buffer| Arc::strong_count(buffer) > 1 || !locked(buffer).is_empty());
            if let Some(sink) = sink {
                self = Self { sink, torn: false, failing: false };
            }
            locked(&shared.orders).finished = asked;
            shared.done.notify_all();
            if stop {
                return;
            }
        }
    }

    /// Writes whole lines; what cannot be written is lost and counted.
    fn write(&mut self, batch: &[u8], dropped: &IntCounter) {
        let Some(sink) = self.sink.as_mut() else { return };
        if batch.is_empty() {
            return;
        }
        let mut rest = batch;
        let result = if self.torn { write_some(sink, &mut &b"\n"[..]) } else { Ok(()) };
        let result = result.and_then(|()| {
            self.torn = false;
            write_some(sink, &mut rest)
        });
        if let Err(error) = result {
            let written = batch.len() - rest.len();
            self.torn |= written > 0 && batch.get(written - 1) != Some(&b'\n');
            dropped.inc_by(memchr::memchr_iter(b'\n', rest).count() as u64);
            if !self.failing {
                tracing::error!(%error, "log lines are lost until their target can be written again");
            }
        }
        self.failing = !rest.is_empty();
    }
}

/// Writes until `rest` is empty, which on an error says what was left.
fn write_some(sink: &mut Box<dyn Write + Send>, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => *rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A panic elsewhere leaves these values whole: lists and counters.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A panic while a line was written leaves it torn: it is cut away, so that one line stays one event.
fn whole_lines(buffer: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    buffer.lock().unwrap_or_else(|poisoned| {
        let mut lines = poisoned.into_inner();
        let whole = memchr::memrchr(b'\n', &lines).map_or(0, |end| end + 1);
        lines.truncate(whole);
        buffer.clear_poison();
        lines
    })
}
