//! A table that is printed row by row, so that what was measured stays if the rest fails.

use std::{fmt::Display, time::Duration};

/// What the rows below are about.
pub fn title(text: &str) {
    println!("\n{text}");
}

/// What was measured, and what is wanted where that can be said.
pub fn row(what: &str, measured: impl Display, wanted: &str) {
    let wanted = if wanted.is_empty() {
        String::new()
    } else {
        format!("({wanted})")
    };
    let line = format!("  {what:<42} {measured:>16}  {wanted}");
    println!("{}", line.trim_end());
}

pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

pub fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

pub fn count(count: impl Display) -> String {
    count.to_string()
}
