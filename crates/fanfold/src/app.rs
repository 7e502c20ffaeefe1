use crate::host::catch::catch;
use crate::host::request::Request;
use crate::names::{LogId, ServiceName};
use crate::service::{Service, current_version};
use crate::services::Services;
use crate::view::{AnyView, View, Views};

/// What a host runs: services and views, under one name. `fanfold_cli::main` hosts it on one
/// machine, `fanfold_lambda::main` on AWS.
#[derive(Clone)]
pub struct App {
    name: &'static str,
    services: Services,
    views: Views,
    example: Option<Example>,
}

/// A command and a view that show a new user that the app works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    /// A request for `POST /command`, as JSON.
    pub command: &'static str,
    /// The view that shows its effect. It must understand all event types of the service, so that
    /// a reader can wait for it.
    pub view: &'static str,
}

/// Everything that is wrong with an app.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the app `{name}` cannot be hosted: {}", .problems.join("; "))]
pub struct AppError {
    /// The app.
    pub name: &'static str,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// An app that is being put together. [`build`](AppBuilder::build) reports every mistake.
#[must_use = "an app exists only after `build`"]
pub struct AppBuilder {
    app: App,
    problems: Vec<String>,
}

impl App {
    /// Begins an app. The name has the same rules as a service's.
    pub fn named(name: &'static str) -> AppBuilder {
        let wrong = ServiceName::new(name).err();
        let problems = wrong.map(|error| format!("the name of the app `{name}` {error}"));
        let (services, views) = (Services::new(), Views::new());
        let app = Self { name, services, views, example: None };
        AppBuilder { app, problems: problems.into_iter().collect() }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its services.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Its views.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Its example, if it has one.
    pub fn example(&self) -> Option<Example> {
        self.example
    }

    /// Whether it has a service. If not, only its views can be hosted, beside another app.
    pub fn has_services(&self) -> bool {
        self.services.iter().next().is_some()
    }
}

impl AppBuilder {
    /// Adds a service.
    pub fn service<S: Service>(mut self) -> Self {
        self.problems.extend(self.app.services.add::<S>());
        self
    }

    /// Adds a view.
    pub fn view<V: View>(mut self) -> Self {
        self.problems.extend(self.app.views.add::<V>());
        self
    }

    /// Sets the example that hosts show to a new user.
    pub fn example(mut self, example: Example) -> Self {
        self.app.example = Some(example);
        self
    }

    /// The app, or everything that is wrong with it. An app without services may have views of any
    /// service, since it is deployed beside the app that has them.
    pub fn build(self) -> Result<App, AppError> {
        let Self { app, mut problems } = self;
        let App { name, services, views, example } = &app;
        if app.has_services() {
            let of_views = views.iter().flat_map(|view| view_problems(view.as_ref(), services));
            problems.extend(of_views);
        } else if views.iter().next().is_none() {
            problems.push("it has neither a service nor a view".to_owned());
        } else {
            problems.extend(views.iter().flat_map(|view| problems_alone(view.as_ref())));
        }
        let of_example = example.and_then(|example| example.problem(services, views));
        problems.extend(of_example);
        let (name, views) = (*name, views.beside(services));
        let app = App { views, ..app };
        if problems.is_empty() {
            problems = schema_problems(&app);
        }
        match problems.is_empty() {
            true => Ok(app),
            false => Err(AppError { name, problems }),
        }
    }
}

impl Example {
    /// The log of the command; `None` if the services cannot read it.
    pub fn log(&self, services: &Services) -> Option<LogId> {
        Request::parse(self.command.as_bytes(), services).ok().map(|request| request.log)
    }

    /// What is wrong with it beside these services and views.
    fn problem(&self, services: &Services, views: &Views) -> Option<String> {
        let Self { command, view } = self;
        let request = match Request::parse(command.as_bytes(), services) {
            Ok(request) => request,
            Err(error) => return Some(format!("the command of the example is wrong: {error}")),
        };
        let Some(found) = views.get(view) else {
            return Some(format!("the view `{view}` of the example is not in the app"));
        };
        let service = request.log.service();
        if !found.services().contains(&service) {
            return Some(format!("the view `{view}` of the example does not read `{service}`"));
        }
        found.is_filtered(services).then(|| {
            format!("the view `{view}` of the example cannot be waited for: it is filtered")
        })
    }
}

/// What is wrong with the schemas of commands and events, without which they are missing in the
/// app's description.
fn schema_problems(app: &App) -> Vec<String> {
    let described = match catch("JsonSchema", || app.describe()) {
        Ok(described) => described,
        Err(fault) => return vec![format!("the schemas cannot be made: {fault}")],
    };
    let mut problems = Vec::new();
    for service in app.services().iter() {
        let (name, described) = (service.name(), described.services.get(service.name()));
        if described.is_none_or(|described| described.commands.is_empty()) {
            problems.push(format!(
                "the commands of the service `{name}` have no schema of an enum with `#[serde(tag = \
                 \"command\", content = \"data\")]`: derive `JsonSchema` on one"
            ));
        }
        let has = |kind: &str| described.is_some_and(|of| of.events.contains_key(kind));
        let missing = service.events().iter().filter(|(kind, _)| !has(kind));
        problems.extend(missing.map(|(kind, _)| {
            format!(
                "the event type `{kind}` of the service `{name}` is not a variant in the schema of \
                 its events: derive `JsonSchema` on an enum with `#[serde(tag = \"type\", content = \
                 \"data\")]` that has it"
            )
        }));
    }
    problems
}

/// What is wrong with a view without its services.
fn problems_alone(view: &dyn AnyView) -> Vec<String> {
    if view.services().is_empty() {
        return vec![];
    }
    let left = view.left_to_services().into_iter().map(|kind| {
        format!(
            "the view `{}` must define `upcast` for older versions of the event type `{kind}`, \
             since the app does not have its services",
            view.name()
        )
    });
    left.collect()
}

/// What is wrong with a view beside these services.
fn view_problems(view: &dyn AnyView, services: &Services) -> Vec<String> {
    let mut problems = Vec::new();
    let name = view.name();
    let unknown = view.services().iter().filter(|service| services.get(service).is_none());
    problems.extend(unknown.map(|service| {
        format!("the view `{name}` reads the service `{service}`, which the app does not have")
    }));
    // Which events it may read, the app knows only if it has all of the view's services.
    if !problems.is_empty() || view.services().is_empty() {
        return problems;
    }
    let known: Vec<_> =
        view.services().iter().filter_map(|service| services.get(service)).collect();
    for (kind, version) in view.events() {
        let newest = known.iter().filter_map(|of| current_version(of.events(), kind)).max();
        match newest {
            None => problems.push(format!(
                "the view `{name}` reads the event type `{kind}`, which none of its services has"
            )),
            // An event above the view's version would park it.
            Some(newest) if newest != *version => problems.push(format!(
                "the view `{name}` reads version {version} of the event type `{kind}`, and its \
                 services have version {newest}"
            )),
            Some(_) => {}
        }
    }
    if !problems.is_empty() {
        return problems;
    }
    let (left, name) = (view.left_to_services(), view.name());
    for (kind, version) in view.events().iter().filter(|(kind, _)| left.contains(kind)) {
        let other = known.iter().find_map(|of| {
            let found = current_version(of.events(), kind)?;
            (found != *version).then(|| (of.name(), found))
        });
        problems.extend(other.map(|(service, found)| {
            format!(
                "the view `{name}` must define `upcast` for the event type `{kind}`, since the \
                 service `{service}` has only version {found} of it"
            )
        }));
    }
    problems
}
