//! Which function of an app a process is.

use std::sync::Arc;

use fanfold::App;
use fanfold::view::AnyView;
use fanfold_aws::names::ROLE;

use crate::settings::SettingsError;

/// What a role that begins so names: a view.
const VIEW: &str = "view:";

/// A function of an app.
pub(crate) enum Role {
    Api,
    Relay,
    Processor,
    Sweep,
    View(Arc<dyn AnyView>),
}

impl Role {
    /// Reads the variable [`ROLE`].
    pub(crate) fn read(text: Option<&str>, app: &App) -> Result<Self, SettingsError> {
        let role = match text.unwrap_or_default() {
            "api" => Some(Self::Api),
            "relay" => Some(Self::Relay),
            "processor" => Some(Self::Processor),
            "sweep" => Some(Self::Sweep),
            other => {
                let view = other.strip_prefix(VIEW).and_then(|name| app.views().get(name));
                view.cloned().map(Self::View)
            }
        };
        role.ok_or_else(|| {
            let found = match text {
                None | Some("") => format!("{ROLE} is missing"),
                Some(text) => format!("{ROLE} is `{text}`"),
            };
            let views = app.views().iter().map(|view| format!(", `{VIEW}{}`", view.name()));
            let roles =
                format!("`api`, `relay`, `processor`, `sweep`{}", views.collect::<String>());
            let name = app.name();
            SettingsError(vec![format!("{found}, but the app `{name}` has only the roles {roles}")])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: Option<&str>) -> Result<&'static str, String> {
        let app = ledger::app().expect("the ledger is an app");
        match Role::read(text, &app) {
            Ok(Role::Api) => Ok("api"),
            Ok(Role::Relay) => Ok("relay"),
            Ok(Role::Processor) => Ok("processor"),
            Ok(Role::Sweep) => Ok("sweep"),
            Ok(Role::View(view)) => Ok(view.name()),
            Err(error) => Err(error.0.join("; ")),
        }
    }

    #[test]
    fn a_role_names_a_function_of_the_app() {
        for role in ["api", "relay", "processor", "sweep"] {
            assert_eq!(read(Some(role)), Ok(role));
        }
        assert_eq!(read(Some("view:totals")), Ok("totals"));
        let has = "but the app `ledger` has only the roles `api`, `relay`, `processor`, `sweep`, \
                   `view:balances`, `view:statement`, `view:totals`";
        for missing in [None, Some("")] {
            assert_eq!(read(missing), Err(format!("FANFOLD_ROLE is missing, {has}")));
        }
        for wrong in ["views", "view:", "view:total", "Api", "totals"] {
            assert_eq!(read(Some(wrong)), Err(format!("FANFOLD_ROLE is `{wrong}`, {has}")));
        }
    }
}
