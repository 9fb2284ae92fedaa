//! Texts as Slack writes them, and as it takes them. Pure.

use crate::engine::rendering::cut;
use regex::{Captures, Regex};
use std::sync::LazyLock;

/// An address in Slack's markup, and the text that is shown in its place.
#[expect(clippy::expect_used, reason = "a constant")]
static LINK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"<((?:https?://|mailto:)[^>|]*)(?:\|([^>]*))?>").expect("a pattern")
});

/// Text as people wrote it. Slack gives `&`, `<` and `>` back as `&amp;`, `&lt;` and `&gt;`, and addresses as
/// `<https://…>` or `<http://…|…>`. To compare, make both sides plain.
pub fn plain(text: &str) -> String {
    let shown = |link: &Captures<'_>| {
        let shown = link.get(2).or(link.get(1));
        shown.map_or("", |shown| shown.as_str()).to_owned()
    };
    let plain = LINK.replace_all(text, shown);
    // The last of them last: what it leaves is not looked at again.
    plain
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// A text in which Slack looks for markup, so that there is none to be found.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A text of at most `limit` characters, as JavaScript counts them, an ellipsis included.
pub fn clip(text: &str, limit: usize) -> String {
    cut(text, limit, char::len_utf16)
}
