//! Which function of an app a process is.

use std::sync::Arc;

use fanfold::App;
use fanfold::view::AnyView;
use fanfold_aws::names::ROLE;

use crate::settings::SettingsError;

/// What a role that begins so names: a view.
const VIEW: &str = "view:";

/// A role's name and the role.
type Named = (&'static str, fn() -> Role);

/// The roles that need the app's services.
const OF_SERVICES: [Named; 5] = [
    ("api", || Role::Api),
    ("relay", || Role::Relay),
    ("processor", || Role::Processor),
    ("sweep", || Role::Sweep),
    ("operate", || Role::Operate),
];

/// A function of an app.
pub(crate) enum Role {
    Api,
    Relay,
    Processor,
    Sweep,
    Operate,
    View(Arc<dyn AnyView>),
}

impl Role {
    /// Reads the variable [`ROLE`].
    pub(crate) fn read(text: Option<&str>, app: &App) -> Result<Self, SettingsError> {
        let of_services = || OF_SERVICES.into_iter().filter(|_| app.has_services());
        let view = text.and_then(|text| app.views().get(text.strip_prefix(VIEW)?));
        let role = match view {
            Some(view) => Some(Self::View(view.clone())),
            None => of_services().find(|(name, _)| Some(*name) == text).map(|(_, role)| role()),
        };
        role.ok_or_else(|| {
            let of_services = of_services().map(|(name, _)| name.to_owned());
            let views = app.views().iter().map(|view| format!("{VIEW}{}", view.name()));
            let roles = of_services.chain(views).map(|role| format!("`{role}`"));
            let (name, roles) = (app.name(), roles.collect::<Vec<_>>().join(", "));
            SettingsError(vec![match text {
                None | Some("") => {
                    format!("{ROLE} is missing: set it to one of the app `{name}`'s roles {roles}")
                }
                Some(text) => {
                    format!("{ROLE} is `{text}`, but the app `{name}` has only the roles {roles}")
                }
            }])
        })
    }
}

#[cfg(test)]
mod tests {
    use ledger::views::Totals;

    use super::*;

    fn read(text: Option<&str>) -> Result<&'static str, String> {
        read_of(text, &ledger::app().expect("the ledger is an app"))
    }

    fn read_of(text: Option<&str>, app: &App) -> Result<&'static str, String> {
        match Role::read(text, app) {
            Ok(Role::Api) => Ok("api"),
            Ok(Role::Relay) => Ok("relay"),
            Ok(Role::Processor) => Ok("processor"),
            Ok(Role::Sweep) => Ok("sweep"),
            Ok(Role::Operate) => Ok("operate"),
            Ok(Role::View(view)) => Ok(view.name()),
            Err(error) => Err(error.0.join("; ")),
        }
    }

    #[test]
    fn a_role_names_a_function_of_the_app() {
        for role in ["api", "relay", "processor", "sweep", "operate"] {
            assert_eq!(read(Some(role)), Ok(role));
        }
        assert_eq!(read(Some("view:totals")), Ok("totals"));
        let roles = "roles `api`, `relay`, `processor`, `sweep`, `operate`, \
                     `view:balances`, `view:statement`, `view:totals`";
        for missing in [None, Some("")] {
            let what = "FANFOLD_ROLE is missing: set it to one of the app `ledger`'s";
            assert_eq!(read(missing), Err(format!("{what} {roles}")));
        }
        for wrong in ["views", "view:", "view:total", "Api", "totals"] {
            let what = format!("FANFOLD_ROLE is `{wrong}`, but the app `ledger` has only the");
            assert_eq!(read(Some(wrong)), Err(format!("{what} {roles}")));
        }
    }

    #[test]
    fn an_app_without_services_has_only_views() {
        let app = App::named("more").view::<Totals>().build().expect("an app of a view");
        assert_eq!(read_of(Some("view:totals"), &app), Ok("totals"));
        for role in ["api", "relay", "processor", "sweep", "operate"] {
            let what = "but the app `more` has only the roles `view:totals`";
            let expected = Err(format!("FANFOLD_ROLE is `{role}`, {what}"));
            assert_eq!(read_of(Some(role), &app), expected);
        }
    }
}
