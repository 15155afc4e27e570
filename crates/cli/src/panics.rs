//! A panic is a bug, or a GPU that failed: its libraries say so in no other way. The user gets one error either way.

use anyhow::{Result, anyhow};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};

const WHAT_TO_DO: &str = "this is a bug, or the device failed or is not there (--device); if it ran out of memory, a smaller \
                          batch.micro_batch or machine.recompute = true takes less (RUST_BACKTRACE=1 says more)";

/// Runs something, with a panic of any thread that ends it as an error: the first panic's, which is the cause of others.
pub fn as_errors(run: impl FnOnce() -> Result<()>) -> Result<()> {
    let first: Arc<OnceLock<String>> = Arc::default();
    let (before, heard) = (panic::take_hook(), Arc::clone(&first));
    let traced = std::env::var_os("RUST_BACKTRACE").is_some();
    panic::set_hook(Box::new(move |panic| {
        if traced {
            before(panic);
        }
        let text = panic.to_string();
        let _ = heard.set(text.lines().collect::<Vec<_>>().join(" "));
    }));
    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let cause = first.get().map_or("panicked", String::as_str);
        Err(anyhow!("{cause}: {WHAT_TO_DO}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_the_error() {
        let found = as_errors(|| {
            let _ = std::thread::spawn(|| panic!("no memory left")).join();
            panic!("the other thread is gone");
        });
        let _ = panic::take_hook();
        let message = found.unwrap_err().to_string();
        assert!(message.contains("no memory left") && message.contains("panics.rs"), "{message}");
        assert!(!message.contains("the other thread is gone"), "{message}");
        assert!(as_errors(|| Ok(())).is_ok());
        let _ = panic::take_hook();
    }
}
