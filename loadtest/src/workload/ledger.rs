//! The commands of the ledger, which is the load without a workload file.

use std::io::Write;

use rand::Rng;
use rand::rngs::SmallRng;

use super::names::letters;
use super::{Origin, Spec, rolls};
use auditor::receipts::{Command, Digest};

const ACCOUNTS: [&str; 2] = ["cash", "bank"];
/// The first deposit of every organisation, in minor units. No run withdraws more.
const BEGIN_WITH: i64 = 1_000_000_000_000;
/// More than any balance, so that its withdrawal is rejected.
pub(super) const TOO_MUCH: i64 = i64::MAX;
/// The largest amount of a command, in minor units.
const AMOUNT_MAX: i64 = 1_000;
/// The beginning of a memo, and the end of a request.
const MEMO: &[u8] = br#","memo":""#;
const END: &[u8] = b"}}";

/// What a command of the ledger asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    Open(usize),
    Deposit(usize, i64),
    Withdraw(usize, i64),
    Transfer(usize, usize, i64),
}

/// The commands that open the accounts of an organisation.
pub(super) const OPENINGS: [Action; 3] =
    [Action::Open(0), Action::Open(1), Action::Deposit(0, BEGIN_WITH)];

impl Action {
    pub(super) fn draw(spec: &Spec, random: &mut SmallRng) -> Self {
        let account = random.random_range(0..ACCOUNTS.len());
        let amount = random.random_range(1..=AMOUNT_MAX);
        if rolls(random, spec.rejected) {
            Self::Withdraw(account, TOO_MUCH)
        } else if rolls(random, spec.transfers) {
            Self::Transfer(0, 1, amount)
        } else if account == 0 && random.random() {
            // Only the first account has the money for it.
            Self::Withdraw(0, amount)
        } else {
            Self::Deposit(account, amount)
        }
    }

    /// A different one.
    pub(super) fn another(self) -> Self {
        match self {
            Self::Deposit(to, amount) => Self::Deposit(to, amount + 1),
            _ => Self::Deposit(0, 1),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Deposit(..) => "deposit",
            Self::Withdraw(..) => "withdraw",
            Self::Transfer(..) => "transfer",
        }
    }

    /// The command as a file of receipts shows it.
    pub(super) fn command(self) -> Command {
        let account = |number: usize| ACCOUNTS[number].to_owned();
        match self {
            Self::Open(of) => Command::Open { account: account(of) },
            Self::Deposit(to, amount) => Command::Deposit { account: account(to), amount },
            Self::Withdraw(from, amount) => Command::Withdraw { account: account(from), amount },
            Self::Transfer(from, to, amount) => {
                Command::Transfer { from: account(from), to: account(to), amount }
            }
        }
    }

    /// Appends the data of a request, and its end. `begun`: its bytes so far.
    pub(super) fn write(
        self,
        spec: &Spec,
        origin: &Origin,
        id: u64,
        begun: usize,
        out: &mut Vec<u8>,
    ) {
        self.write_plain(out);
        if let Some(memo) = self.memo_of(spec, origin, id, out.len() - begun) {
            out.extend_from_slice(MEMO);
            out.extend_from_slice(memo.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(END);
    }

    /// Appends the data without memo and end.
    fn write_plain(self, out: &mut Vec<u8>) {
        let mut write = |text: std::fmt::Arguments<'_>| {
            out.write_fmt(text).expect("writing to memory never fails");
        };
        match self {
            Self::Open(of) => write(format_args!(r#"{{"account":"{}""#, ACCOUNTS[of])),
            Self::Deposit(of, amount) | Self::Withdraw(of, amount) => {
                write(format_args!(r#"{{"account":"{}","amount":{amount}"#, ACCOUNTS[of]));
            }
            Self::Transfer(from, to, amount) => {
                let (from, to) = (ACCOUNTS[from], ACCOUNTS[to]);
                write(format_args!(r#"{{"from":"{from}","to":"{to}","amount":{amount}"#));
            }
        }
    }

    /// The memo that fills the command up to its size, if there is room for one. `head`: appends
    /// the request up to its data.
    pub(super) fn memo(
        self,
        spec: &Spec,
        origin: &Origin,
        id: u64,
        head: impl FnOnce(&mut Vec<u8>),
    ) -> Option<String> {
        if spec.payload == 0 {
            return None;
        }
        let mut plain = Vec::new();
        head(&mut plain);
        self.write_plain(&mut plain);
        self.memo_of(spec, origin, id, plain.len())
    }

    fn memo_of(self, spec: &Spec, origin: &Origin, id: u64, plain: usize) -> Option<String> {
        if spec.payload == 0 || matches!(self, Self::Open(_)) {
            return None;
        }
        let least = plain + MEMO.len() + 1 + END.len();
        let bytes = spec.payload.checked_sub(least).filter(|bytes| *bytes > 0)?;
        let whose = format!("{} {} {id}", origin.log(spec), origin.user(spec));
        Some(letters(Digest::of(&whose).number(), bytes))
    }
}
