//! What the person sees: numbered steps, what they would type, what it said, and what that proves.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use campanile_world::slack::{self, Message};

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";
/// Before this much time has passed nobody wonders what is going on.
const PATIENCE: Duration = Duration::from_secs(2);
const WIDTH: usize = 96;

/// Standard output. That nobody reads it any more is no reason to fail.
pub struct Screen {
    terminal: bool,
    colour: bool,
    steps: Cell<usize>,
    began: Cell<Instant>,
    waiting: Cell<bool>,
}

impl Screen {
    /// Colours only for a person at a terminal who has not said NO_COLOR.
    pub fn new() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let terminal =
            std::io::stdout().is_terminal() && set("TERM").is_none_or(|term| term != "dumb");
        Self {
            terminal,
            colour: terminal && set("NO_COLOR").is_none(),
            steps: Cell::new(0),
            began: Cell::new(Instant::now()),
            waiting: Cell::new(false),
        }
    }

    /// The heading of everything.
    pub fn title(&self, text: &str) {
        self.line(&self.paint(BOLD, text));
    }

    /// The heading of the next step, and what it means.
    pub fn step(&self, title: &str, meaning: &str) {
        self.steps.set(self.steps.get() + 1);
        self.began.set(Instant::now());
        self.line("");
        self.line(&self.paint(BOLD, &format!("{:>2}  {title}", self.steps.get())));
        self.say(meaning);
    }

    /// Running text.
    pub fn say(&self, text: &str) {
        for line in wrap(text) {
            self.line(&format!("    {line}"));
        }
    }

    /// What a person would type.
    pub fn command(&self, line: &str) {
        self.line("");
        self.line(&format!(
            "    {} {}",
            self.paint(CYAN, "$"),
            self.paint(CYAN, line)
        ));
    }

    /// What it answered.
    pub fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(format!("      {line}").trim_end());
        }
    }

    /// A message in Slack as people read it there, `lines` of it at most.
    pub fn message(&self, message: &Message, lines: usize) {
        let text = if self.colour {
            slack::paint(message)
        } else {
            slack::render(message)
        };
        self.line("");
        let mut rest = text.lines();
        for line in rest.by_ref().take(lines) {
            self.output(line);
        }
        if rest.next().is_some() {
            self.output("…");
        }
    }

    /// A fact, by what was read.
    pub fn proven(&self, fact: impl Display) {
        let took = format!("{:.1} s", self.began.get().elapsed().as_secs_f64());
        let mut lines = wrap(&fact.to_string()).into_iter();
        let mut line = format!(
            "    {} {}",
            self.paint(GREEN, "✓"),
            lines.next().unwrap_or_default()
        );
        for next in lines {
            self.line(&line);
            line = format!("      {next}");
        }
        self.line(&format!("{line}  {}", self.paint(DIM, &took)));
    }

    /// That something takes its time; only where the line can be taken back.
    pub fn waiting(&self, what: &str, since: Duration) {
        if self.terminal && since >= PATIENCE {
            self.waiting.set(true);
            let text: String = format!("    … {what}, {} s", since.as_secs())
                .chars()
                .take(WIDTH)
                .collect();
            let _ = write!(std::io::stdout(), "\r\x1b[K{}", self.paint(DIM, &text));
            let _ = std::io::stdout().flush();
        }
    }

    /// The same, as long as this is polled.
    pub async fn tick(&self, what: &str) -> Infallible {
        let began = Instant::now();
        loop {
            tokio::time::sleep(PATIENCE / 2).await;
            self.waiting(what, began.elapsed());
        }
    }

    /// What was not proven: what should have been read, and what was.
    pub fn failed(&self, expected: &str, read: &str) {
        self.line("");
        self.line(&format!(
            "    {} {}",
            self.paint(RED, "✗"),
            self.paint(BOLD, expected)
        ));
        self.line("      what was read last:");
        for line in read.trim_end().lines() {
            self.line(&format!("        {line}"));
        }
    }

    /// The end of a log.
    pub fn tail(&self, title: &str, text: &str) {
        self.line(&format!("      {title}"));
        for line in text.lines() {
            self.line(&self.paint(DIM, &format!("        {line}")));
        }
    }

    /// A line as it is.
    pub fn line(&self, text: &str) {
        if self.waiting.take() {
            let _ = write!(std::io::stdout(), "\r\x1b[K");
        }
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{WIDTH, wrap};

    #[test]
    fn text_is_wrapped_between_words() {
        let text = "word ".repeat(60) + &"x".repeat(WIDTH + 10);
        let lines = wrap(&text);
        assert!(
            lines[..lines.len() - 1]
                .iter()
                .all(|line| line.chars().count() <= WIDTH)
        );
        assert_eq!(lines.join(" "), text);
    }
}
