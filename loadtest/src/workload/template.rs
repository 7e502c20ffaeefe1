//! Templates of data: compiled once, rendered for each command.
//!
//! A text that is one expression, `"{{ … }}"`, keeps the type of its value. Any other text with
//! `{{` or `{%` is rendered as a text. All randomness is that of the command: a template has no
//! clock and no state, so the same seed renders the same data.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use jiff::civil::Date;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Expression, Template, UndefinedBehavior};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::file::Data;
use super::names::{FIRST_NAMES, LAST_NAMES, letters};

/// Steps of one template's rendering: several hundred times what a usual one takes.
const STEPS_MAX: u64 = 1_000_000;
/// Characters of a `text()`: bytes of a command, by the API.
const TEXT_CHARS_MAX: usize = 64 * 1024;
/// Decimal places of a `number()`: more are not exact in a float of this size.
const PLACES_MAX: u32 = 9;
/// What templates can read.
pub(super) const VARIABLES: [&str; 3] = ["n", "tenant", "run"];
/// What templates can call, beside the functions that every template has.
pub(super) const FUNCTIONS: [&str; 7] =
    ["int", "number", "choice", "date", "name", "text", "earlier"];
/// Functions of minijinja.
const BUILT_IN: [&str; 3] = ["range", "dict", "namespace"];

/// What the templates of a workload share.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(STEPS_MAX));
    environment.add_function("int", int);
    environment.add_function("number", number);
    environment.add_function("choice", choice);
    environment.add_function("date", date);
    environment.add_function("name", name);
    environment.add_function("text", text);
    environment.add_function("earlier", earlier);
    environment
}

/// A command whose values later commands use, and which of its fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Remembered {
    pub(super) command: String,
    pub(super) fields: Vec<String>,
}

/// The values of earlier commands of a tenant: for each remembered command the last ones, each with
/// a value for each field.
#[derive(Debug, Default)]
pub(super) struct Memory(pub(super) Vec<VecDeque<Box<[Value]>>>);

/// What a rendering draws from.
struct Draw {
    random: SmallRng,
    remembered: Arc<[Remembered]>,
    memory: Memory,
    /// The earlier commands that were drawn.
    drawn: Vec<DrawnEarlier>,
}

/// An earlier command that was drawn, for all fields of the rendering with this number.
struct DrawnEarlier {
    /// Its number among the remembered commands.
    of: usize,
    /// As the template gives it.
    number: u32,
    /// Its position in the memory.
    which: usize,
}

thread_local! {
    /// The rendering of this thread. The functions of templates have no other way to it that costs
    /// less than they do.
    static DRAW: RefCell<Option<Draw>> = const { RefCell::new(None) };
}

/// Renders with the random numbers of `seed` and the memory of a tenant.
pub(super) fn with_draw<T>(
    seed: u64,
    remembered: &Arc<[Remembered]>,
    memory: &mut Memory,
    render: impl FnOnce() -> T,
) -> T {
    let draw = Draw {
        random: SmallRng::seed_from_u64(seed),
        remembered: Arc::clone(remembered),
        memory: std::mem::take(memory),
        drawn: Vec::new(),
    };
    DRAW.with_borrow_mut(|slot| *slot = Some(draw));
    let rendered = render();
    if let Some(draw) = DRAW.take() {
        *memory = draw.memory;
    }
    rendered
}

/// Calls `draw` with the current rendering's state.
fn drawing<T>(draw: impl FnOnce(&mut Draw) -> Result<T, Error>) -> Result<T, Error> {
    DRAW.with_borrow_mut(|slot| match slot {
        Some(state) => draw(state),
        None => Err(wrong("it is only there while a command is rendered")),
    })
}

fn wrong(detail: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail)
}

/// `int(low, high)`: an integer, both ends included.
fn int(low: i64, high: i64) -> Result<i64, Error> {
    if low > high {
        return Err(wrong(format!("int({low}, {high}): the first must not exceed the second")));
    }
    drawing(|draw| Ok(draw.random.random_range(low..=high)))
}

/// `number(low, high, places)`: a decimal number.
fn number(low: f64, high: f64, places: Option<u32>) -> Result<f64, Error> {
    let places = places.unwrap_or(2);
    if !(low.is_finite() && high.is_finite() && low <= high) || places > PLACES_MAX {
        return Err(wrong(format!(
            "number({low}, {high}, {places}): the first must not exceed the second, and at most \
             {PLACES_MAX} decimal places are possible"
        )));
    }
    let scale = 10_f64.powi(places as i32);
    drawing(|draw| Ok((draw.random.random_range(low..=high) * scale).round() / scale))
}

/// `choice(list)`: one of its items.
fn choice(items: Value) -> Result<Value, Error> {
    let count = items.len().filter(|_| matches!(items.kind(), ValueKind::Seq));
    match count {
        Some(count @ 1..) => {
            let at = drawing(|draw| Ok(draw.random.random_range(0..count)))?;
            items.get_item_by_index(at)
        }
        _ => Err(wrong("choice(…) takes a list that is not empty, such as choice(['a', 'b'])")),
    }
}

/// `date(first, last)`: a date as `2026-01-31`, both ends included. `date(first, last, at)`: the day
/// with this number from `first` on, which begins anew behind `last`. So two fields can be on the
/// same day.
fn date(first: &str, last: &str, at: Option<u64>) -> Result<String, Error> {
    let read = |text: &str| {
        text.parse::<Date>()
            .map_err(|_| wrong(format!("`{text}` is not a date such as 2026-01-31")))
    };
    let (from, to) = (read(first)?, read(last)?);
    let days = from.until(to).map(|span| span.get_days()).unwrap_or(-1);
    if days < 0 {
        return Err(wrong(format!(
            "date('{first}', '{last}'): the first must not be the later one"
        )));
    }
    let after = match at {
        Some(at) => (at % (u64::from(days.unsigned_abs()) + 1)) as i32,
        None => drawing(|draw| Ok(draw.random.random_range(0..=days)))?,
    };
    let date = from.checked_add(jiff::Span::new().days(after));
    date.map(|date| date.to_string()).map_err(|error| wrong(error.to_string()))
}

/// `name()`: a first and a last name.
fn name() -> Result<String, Error> {
    drawing(|draw| {
        let first = FIRST_NAMES[draw.random.random_range(0..FIRST_NAMES.len())];
        let last = LAST_NAMES[draw.random.random_range(0..LAST_NAMES.len())];
        Ok(format!("{first} {last}"))
    })
}

/// `text(count)`: letters that hardly compress.
fn text(count: usize) -> Result<String, Error> {
    if count > TEXT_CHARS_MAX {
        return Err(wrong(format!("text({count}): at most {TEXT_CHARS_MAX} are possible")));
    }
    let seed = drawing(|draw| Ok(draw.random.random()))?;
    Ok(letters(seed, count))
}

/// `earlier(command, field)`: the value of a field of an earlier command of the tenant. Within one
/// rendering all fields of a command are of the same earlier one. `earlier(command, field, number)`:
/// one command for each number. The value differs from those of the other numbers, if it can.
fn earlier(command: &str, field: &str, number: Option<u32>) -> Result<Value, Error> {
    drawing(|draw| {
        let Draw { random, remembered, memory, drawn } = draw;
        let none = || {
            wrong(format!(
                "earlier('{command}', '{field}'): no command of this name with this field was sent \
                 before"
            ))
        };
        let of = remembered.iter().position(|one| one.command == command).ok_or_else(none)?;
        let at = remembered[of].fields.iter().position(|one| one == field).ok_or_else(none)?;
        let all = memory.0.get(of).filter(|all| !all.is_empty()).ok_or_else(none)?;
        let number = number.unwrap_or(1);
        let same = drawn.iter().find(|drawn| (drawn.of, drawn.number) == (of, number));
        let which = match same {
            Some(same) => same.which,
            None => {
                let which = draw_other(random, all, at, drawn.iter().filter(|one| one.of == of));
                drawn.push(DrawnEarlier { of, number, which });
                which
            }
        };
        Ok(all[which][at].clone())
    })
}

/// Draws one of these commands, whose field `at` differs from those of the drawn ones; any of them
/// if none differs.
fn draw_other<'a>(
    random: &mut SmallRng,
    all: &VecDeque<Box<[Value]>>,
    at: usize,
    drawn: impl Iterator<Item = &'a DrawnEarlier> + Clone,
) -> usize {
    // Fast path: most templates use one number.
    if drawn.clone().next().is_none() {
        return random.random_range(0..all.len());
    }
    let differs = |which: &usize| drawn.clone().all(|one| all[one.which][at] != all[*which][at]);
    let others: Vec<usize> = (0..all.len()).filter(differs).collect();
    match others.len() {
        0 => random.random_range(0..all.len()),
        count => others[random.random_range(0..count)],
    }
}

/// A part of data that is rendered, or written as it is.
pub(super) enum Node {
    /// JSON.
    Fixed(Box<str>),
    Object(Vec<(Box<str>, Node)>),
    Array(Vec<Node>),
    Expression(Place, Expression<'static, 'static>),
    Template(Place, Template<'static, 'static>),
}

/// Where a template is in its file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) line: u64,
    /// The path of the field: `data.room`.
    pub(super) field: String,
}

/// What is wrong with a template or its value, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) what: String,
}

impl Fault {
    fn of(place: &Place, error: &Error) -> Self {
        let what = match error.detail() {
            Some(detail) => detail.to_owned(),
            None => error.kind().to_string(),
        };
        // The line counts within the text of the field.
        let line = error.line().filter(|line| *line > 1);
        let line = line.map_or(String::new(), |line| format!(" (in line {line} of the text)"));
        Self { place: place.clone(), what: format!("{what}{line}") }
    }
}

impl Node {
    /// Compiles data. `calls`: is called with the arguments of each `earlier(…)`.
    pub(super) fn compile(
        environment: &'static Environment<'static>,
        data: &Data,
        place: &Place,
        calls: &mut impl FnMut(&Place, &str, &str),
    ) -> Result<Self, Fault> {
        let below = |part: &str, line: u64| {
            let line = if line == 0 { place.line } else { line };
            Place { line, field: format!("{}.{part}", place.field) }
        };
        Ok(match data {
            Data::Plain(value) => Self::Fixed(value.to_string().into()),
            Data::List(items) => {
                let items = items.iter().enumerate().map(|(at, item)| {
                    let place = below(&at.to_string(), item.referenced.line());
                    Self::compile(environment, &item.value, &place, calls)
                });
                Self::Array(items.collect::<Result<_, _>>()?)
            }
            Data::Map(members) => {
                let members = members.iter().map(|(key, value)| {
                    let place = below(key, value.referenced.line());
                    let value = Self::compile(environment, &value.value, &place, calls)?;
                    let key = serde_json::Value::from(key.as_str()).to_string();
                    Ok((format!("{key}:").into(), value))
                });
                Self::Object(members.collect::<Result<_, _>>()?)
            }
            Data::Text(text) if !["{{", "{%", "{#"].iter().any(|mark| text.contains(mark)) => {
                Self::Fixed(serde_json::Value::from(text.as_str()).to_string().into())
            }
            Data::Text(text) => {
                for call in earlier_calls(text) {
                    let (command, field) =
                        call.map_err(|what| Fault { place: place.clone(), what })?;
                    calls(place, command, field);
                }
                let wrong = |error| Fault::of(place, &error);
                let inner = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
                // A text such as `{{ a }} {{ b }}` is no expression.
                let expression = inner
                    .map(|inner| environment.compile_expression_owned(inner.trim().to_owned()));
                match expression {
                    Some(Ok(expression)) => {
                        check_names(place, expression.undeclared_variables(false))?;
                        Self::Expression(place.clone(), expression)
                    }
                    Some(Err(error)) if inner.is_some_and(|inner| !inner.contains("}}")) => {
                        return Err(wrong(error));
                    }
                    _ => {
                        // The text lives as long as the process, as the workload does.
                        let text: &'static str = String::leak(text.clone());
                        let template = environment.template_from_str(text).map_err(wrong)?;
                        check_names(place, template.undeclared_variables(false))?;
                        Self::Template(place.clone(), template)
                    }
                }
            }
        })
    }

    /// Appends the data as JSON. Must be called within [`with_draw`].
    pub(super) fn write(&self, variables: &Value, out: &mut String) -> Result<(), Fault> {
        match self {
            Self::Fixed(json) => out.push_str(json),
            Self::Object(members) => {
                let mut before = '{';
                for (key, value) in members {
                    out.push(before);
                    out.push_str(key);
                    value.write(variables, out)?;
                    before = ',';
                }
                out.push_str(if members.is_empty() { "{}" } else { "}" });
            }
            Self::Array(items) => {
                let mut before = '[';
                for item in items {
                    out.push(before);
                    item.write(variables, out)?;
                    before = ',';
                }
                out.push_str(if items.is_empty() { "[]" } else { "]" });
            }
            Self::Expression(place, expression) => {
                let value =
                    expression.eval(variables.clone()).map_err(|error| Fault::of(place, &error))?;
                let wrong = |what: String| Fault { place: place.clone(), what };
                if value.is_undefined() {
                    return Err(wrong("the value is undefined".to_owned()));
                }
                // Fast path: most values are texts or integers.
                match (value.as_str(), value.is_integer()) {
                    (None, true) => write!(out, "{value}").expect("a string takes all"),
                    (Some(text), _) => push_text(text, out),
                    _ => {
                        let json = serde_json::to_string(&value);
                        out.push_str(&json.map_err(|error| wrong(error.to_string()))?);
                    }
                }
            }
            Self::Template(place, template) => {
                let text =
                    template.render(variables.clone()).map_err(|error| Fault::of(place, &error))?;
                push_text(&text, out);
            }
        }
        Ok(())
    }
}

fn push_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).expect("a text is JSON"));
}

/// Checks that a template uses only names that exist.
fn check_names(place: &Place, used: impl IntoIterator<Item = String>) -> Result<(), Fault> {
    let is_known = |name: &&str| [&VARIABLES[..], &FUNCTIONS, &BUILT_IN].concat().contains(name);
    let mut unknown: Vec<String> =
        used.into_iter().filter(|name| !is_known(&name.as_str())).collect();
    unknown.sort_unstable();
    match unknown.first() {
        None => Ok(()),
        Some(name) => Err(Fault {
            place: place.clone(),
            what: format!(
                "there is no `{name}`: templates have the variables {} and the functions {}",
                VARIABLES.join(", "),
                FUNCTIONS.join(", ")
            ),
        }),
    }
}

/// The arguments of each `earlier(…)` in a text. They must be in quotes, since the load has to know
/// before it renders whether there are such commands.
fn earlier_calls(text: &str) -> impl Iterator<Item = Result<(&str, &str), String>> {
    let parts = text
        .split("earlier")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix('(').map(str::trim_start));
    parts.map(|rest| {
        let quoted = |rest: &str| -> Option<(usize, usize)> {
            let quote = rest.chars().next().filter(|c| ['\'', '"'].contains(c))?;
            rest[1..].find(quote).map(|end| (1, 1 + end))
        };
        let arguments = || {
            let (from, to) = quoted(rest)?;
            let command = &rest[from..to];
            let rest = rest[to + 1..].trim_start().strip_prefix(',')?.trim_start();
            let (from, to) = quoted(rest)?;
            let field = &rest[from..to];
            // A number may follow.
            rest[to + 1..].trim_start().starts_with([')', ',']).then_some((command, field))
        };
        arguments().ok_or_else(|| {
            "earlier(…) takes the name of a command and a field, both in quotes: \
             earlier('book', 'room')"
                .to_owned()
        })
    })
}
