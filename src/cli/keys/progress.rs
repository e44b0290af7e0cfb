//! A bar on standard error for what takes over a second, such as a change in a file of a million keys. Only a terminal sees
//! it, and nothing of it stays there.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less is done before anyone could read of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far the work goes on between two looks at the clock.
const STRIDE: usize = 4_096;

/// How far one command has come.
pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
    /// Where the bar will be seen, until it is.
    target: RefCell<Option<ProgressDrawTarget>>,
    /// When to look at the clock again.
    next: Cell<usize>,
}

impl Progress {
    /// Of a command that begins now.
    pub(super) fn new() -> Self {
        Self::on(ProgressDrawTarget::stderr(), Instant::now())
    }

    fn on(target: ProgressDrawTarget, began: Instant) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{msg:<19} [{bar:40}] {percent:>3}%");
        let style = style.unwrap_or_else(|_sound| ProgressStyle::default_bar()).progress_chars("=> ");
        Self { bar: bar.with_style(style), began, target: RefCell::new(Some(target)), next: Cell::new(0) }
    }

    /// A part of the work begins, which ends at `end`.
    pub(super) fn begin(&self, what: &'static str, end: usize) {
        self.bar.set_length(end as u64);
        self.bar.set_message(what);
        self.next.set(0);
        self.reached(0);
    }

    /// As [`Progress::begin`] with the lines of `text`.
    pub(super) fn begin_lines(&self, what: &'static str, text: &str) {
        self.begin(what, memchr::memchr_iter(b'\n', text.as_bytes()).count());
    }

    /// As [`Progress::begin`], for writing `end` things to standard output: seen only where they are not.
    pub(super) fn begin_output(&self, what: &'static str, end: usize) {
        if io::stdout().is_terminal() {
            self.end();
        } else {
            self.begin(what, end);
        }
    }

    /// The part of the work under way has come to `at`.
    pub(super) fn reached(&self, at: usize) {
        // A reading that begins anew comes from far ahead.
        if at >= self.next.get() || at + STRIDE < self.next.get() {
            self.next.set(at + STRIDE);
            self.reached_at(at, Instant::now());
        }
    }

    fn reached_at(&self, at: usize, now: Instant) {
        if now.duration_since(self.began) > PATIENCE
            && let Some(target) = self.target.take()
        {
            self.bar.set_draw_target(target);
        }
        self.bar.set_position(at as u64);
    }

    /// Takes the bar away for good.
    pub(super) fn end(&self) {
        self.target.take();
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal that notes what is written to it.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn taken(&self) -> String {
            std::mem::take(&mut self.0.lock().expect("no panic"))
        }

        fn add(&self, text: &str) -> io::Result<()> {
            self.0.lock().expect("no panic").push_str(text);
            Ok(())
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _lines: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _lines: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _columns: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _columns: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.add(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.add(text)
        }

        fn clear_line(&self) -> io::Result<()> {
            self.add("<cleared>")
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_is_seen_after_a_second_and_goes_again() {
        let (screen, began) = (Screen::default(), Instant::now());
        let progress = Progress::on(ProgressDrawTarget::term_like(Box::new(screen.clone())), began);
        progress.begin("reading the keys", 200);
        progress.reached_at(50, began + PATIENCE);
        assert_eq!(screen.taken(), "", "within a second");
        progress.reached_at(100, began + PATIENCE * 2);
        let seen = screen.taken();
        assert!(seen.contains("reading the keys    [====================>                   ]  50%"), "{seen:?}");
        progress.begin("checking the change", 10);
        progress.reached_at(9, began + PATIENCE * 3);
        let seen = screen.taken();
        assert!(seen.contains("checking the change") && seen.contains("90%"), "{seen:?}");
        drop(progress);
        assert!(screen.taken().ends_with("<cleared>"));
    }

    #[test]
    fn what_is_quick_leaves_the_terminal_alone() {
        let screen = Screen::default();
        let progress = Progress::on(ProgressDrawTarget::term_like(Box::new(screen.clone())), Instant::now());
        progress.begin("reading the keys", 1);
        progress.reached_at(1, progress.began);
        drop(progress);
        assert_eq!(screen.taken(), "");
    }
}
