//! Slack as the tenant's people have it: their workspace, an app with a bot in it, and those who are there.

use std::cell::OnceCell;

use campanile_world::World;
use campanile_world::slack::Workspace;

use crate::tenant::Tenant;

/// Where alarms go that somebody should look at.
pub const ALERTS: &str = "vsu_alerts";
/// Where goes what only informs.
pub const RUNS: &str = "vsu_workflow_runs";
/// Who is invited to the former.
const ON_CALL: &str = "oncall@vsu.example";
/// What the app was granted: to see, make and enter channels, to post, and to find people by their addresses.
const SCOPES: [&str; 6] = [
    "channels:join",
    "channels:manage",
    "channels:read",
    "chat:write",
    "users:read",
    "users:read.email",
];

/// The tenant's people in Slack.
pub struct Team {
    workspace: Workspace,
    token: String,
    on_call: String,
    webhook: OnceCell<String>,
}

impl Team {
    /// A workspace of the tenant's own.
    pub fn of(world: &World, tenant: &Tenant) -> Self {
        let workspace = world.slack.workspace(&tenant.name);
        // As strict as Slack: nobody may call more often.
        workspace.limit_rates();
        Self {
            token: workspace.bot(&SCOPES),
            on_call: workspace.add_user(ON_CALL),
            workspace,
            webhook: OnceCell::new(),
        }
    }

    /// The workspace.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// The bot's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Who is invited, by id.
    pub fn on_call(&self) -> &str {
        &self.on_call
    }

    /// The webhook to the channel for alarms, which has to be there. Somebody makes it once.
    pub fn webhook(&self) -> &str {
        self.webhook
            .get_or_init(|| self.workspace.webhook(ALERTS))
            .as_str()
    }

    /// Takes from the app what it needs to make channels.
    pub fn forbid_channels(&self) {
        let left: Vec<_> = SCOPES
            .into_iter()
            .filter(|scope| *scope != "channels:manage")
            .collect();
        self.workspace.set_scopes(&self.token, &left);
    }
}
