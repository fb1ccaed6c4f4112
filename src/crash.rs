//! Places where a test can end the process: before and after each durable write and each dangerous call.
//!
//! In builds without debug assertions this is nothing. In others `CVM_EXPORT_TEST_POINTS` names a file to which
//! every place that is passed is appended, and `CVM_EXPORT_TEST_CRASH` the number of the place at which the
//! process ends as by a kill. The list of places comes from running the code, so a new write adds its rows.

/// A place before something.
pub(crate) use Place::{After, Before};

/// A place in the course of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Before(&'static str),
    After(&'static str),
}

/// Passes `place`, or ends there if a test says so.
#[cfg(debug_assertions)]
pub(crate) fn point(place: Place) {
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static LIST: LazyLock<Option<String>> =
        LazyLock::new(|| crate::environment::variable("CVM_EXPORT_TEST_POINTS"));
    static CRASH: LazyLock<Option<usize>> = LazyLock::new(|| {
        crate::environment::variable("CVM_EXPORT_TEST_CRASH")?
            .parse()
            .ok()
    });
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    if LIST.is_none() && CRASH.is_none() {
        return;
    }
    let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(path) = &*LIST {
        let line = match place {
            Before(what) => format!("before {what}\n"),
            After(what) => format!("after {what}\n"),
        };
        let opened = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path);
        // A list that cannot be written shows as an empty one in the test.
        let _ = opened.and_then(|mut file| file.write_all(line.as_bytes()));
    }
    if *CRASH == Some(number) {
        // No destructor runs, and nothing is written any more.
        #[cfg(unix)]
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

/// Passes `place`.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_place: Place) {}
