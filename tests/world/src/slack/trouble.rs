//! What can go wrong with a call, on demand.

use std::collections::VecDeque;
use std::time::Duration;

use super::Workspace;

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing is done, and the answer is this HTTP status with this body, as HTML: a 500 or 503 of what stands before Slack.
    Status(u16, String),
    /// Nothing is done, and the answer is `ok: false` with this error; at a webhook the error as text, with its status.
    Error(String),
    /// Nothing is done: HTTP 429 with this `Retry-After`.
    RateLimited {
        /// Seconds.
        retry_after: u64,
    },
    /// Nothing is done, and the connection is cut.
    CutBefore,
    /// It is done, but the connection is cut instead of an answer.
    CutAfterCommit,
    /// It is done, but answered late.
    Slow(Duration),
    /// Pages hold two entries at most, and every other one is empty, the first and the last among them; a cursor leads on. It stands
    /// beside any other trouble.
    ShortPages,
}

/// Whose calls meet a trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The workspace's id.
    pub workspace: Option<String>,
    /// The id or the name of the channel that is called about, or that is to get that name.
    pub channel: Option<String>,
}

impl Filter {
    /// Every call.
    pub fn any() -> Self {
        Self::default()
    }
}

impl From<&Workspace> for Filter {
    fn from(workspace: &Workspace) -> Self {
        Self {
            workspace: Some(workspace.id().to_owned()),
            channel: None,
        }
    }
}

impl From<&str> for Filter {
    /// A channel, by id or name.
    fn from(channel: &str) -> Self {
        Self {
            workspace: None,
            channel: Some(channel.to_owned()),
        }
    }
}

struct Active {
    method: String,
    filter: Filter,
    trouble: Trouble,
    left: Option<usize>,
}

/// What a call is about, as far as a filter asks.
#[derive(Clone, Debug, Default)]
pub(super) struct About<'a> {
    pub(super) method: &'a str,
    pub(super) workspace: &'a str,
    /// The channel's id, its name, the name it is to get.
    pub(super) channel: Vec<String>,
}

/// A script: of several troubles that a call could meet, it meets the one that was set first.
#[derive(Default)]
pub(super) struct Troubles(VecDeque<Active>);

impl Troubles {
    pub(super) fn set(
        &mut self,
        method: &str,
        filter: Filter,
        trouble: Trouble,
        left: Option<usize>,
    ) {
        self.0.push_back(Active {
            method: method.to_owned(),
            filter,
            trouble,
            left,
        });
    }

    /// Ends those of `method`, all with `*`, that were set with just this filter.
    pub(super) fn lift(&mut self, method: &str, filter: &Filter) {
        self.0.retain(|active| {
            !((method == "*" || active.method == method) && active.filter == *filter)
        });
    }

    /// What a call meets, which is used up by it if it was set for a number of calls; and whether its page is to be short.
    pub(super) fn meet(&mut self, about: &About<'_>) -> (Option<Trouble>, bool) {
        let mut take = |pages: bool| {
            let place = self.0.iter().position(|active| {
                (active.trouble == Trouble::ShortPages) == pages
                    && active.left != Some(0)
                    && active.is_for(about)
            })?;
            let active = self.0.get_mut(place)?;
            let trouble = active.trouble.clone();
            if let Some(left) = &mut active.left {
                *left -= 1;
                if *left == 0 {
                    self.0.remove(place);
                }
            }
            Some(trouble)
        };
        let trouble = take(false);
        (trouble, take(true).is_some())
    }
}

impl Active {
    fn is_for(&self, about: &About<'_>) -> bool {
        let Filter { workspace, channel } = &self.filter;
        (self.method == "*" || self.method == about.method)
            && workspace
                .as_ref()
                .is_none_or(|workspace| workspace == about.workspace)
            && channel
                .as_ref()
                .is_none_or(|channel| about.channel.contains(channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about<'a>(method: &'a str, workspace: &'a str, channel: &str) -> About<'a> {
        About {
            method,
            workspace,
            channel: vec![channel.to_owned()],
        }
    }

    #[test]
    fn is_a_script_for_whom_it_is_meant() {
        let mut troubles = Troubles::default();
        let team = Filter {
            workspace: Some("T1".to_owned()),
            channel: None,
        };
        troubles.set("m", team.clone(), Trouble::CutBefore, Some(1));
        troubles.set("m", team.clone(), Trouble::Error("x".to_owned()), Some(2));
        troubles.set("*", "C9".into(), Trouble::CutAfterCommit, None);
        assert_eq!(troubles.meet(&about("m", "T2", "C1")), (None, false));
        assert_eq!(troubles.meet(&about("n", "T1", "C1")), (None, false));
        assert_eq!(
            troubles.meet(&about("n", "T2", "C9")).0,
            Some(Trouble::CutAfterCommit)
        );
        let script: Vec<_> = (0..4)
            .map(|_| troubles.meet(&about("m", "T1", "C1")).0)
            .collect();
        let error = Some(Trouble::Error("x".to_owned()));
        assert_eq!(
            script,
            [Some(Trouble::CutBefore), error.clone(), error, None]
        );
        troubles.set("m", team.clone(), Trouble::ShortPages, None);
        troubles.set("m", team.clone(), Trouble::CutBefore, None);
        assert_eq!(
            troubles.meet(&about("m", "T1", "")),
            (Some(Trouble::CutBefore), true)
        );
        troubles.lift("*", &team);
        assert_eq!(troubles.meet(&about("m", "T1", "")), (None, false));
        assert!(troubles.meet(&about("m", "T1", "C9")).0.is_some());
    }
}
