//! The rows of the views, with their planted faults.

use serde_json::{Value, json};

use super::{Account, BEFORE, Log};
use crate::plant::Plant;

impl Log {
    /// All rows of a view, by key.
    pub(crate) fn rows(&self, view: &str) -> Option<Vec<Value>> {
        let mut rows: Vec<Value> = match view {
            "balances" => {
                self.accounts.iter().map(|(name, account)| balance_row(name, account)).collect()
            }
            "statement" => self.lines.values().cloned().collect(),
            "totals" if self.totals_seq > 0 => vec![json!({
                "key": "total",
                "seq": self.totals_seq,
                "row": {
                    "accounts": self.accounts.len(), "balance": self.balance,
                    "movements": self.movements, "rejected": self.rejected,
                },
            })],
            "totals" | "counts" | "filtered" => vec![],
            "holders" => self.holders(),
            _ => return None,
        };
        if let Some(plant) = self.plant {
            self.plant_rows(plant, view, &mut rows);
        }
        Some(rows)
    }

    /// A row for each accepted command.
    fn holders(&self) -> Vec<Value> {
        let accepted = self.entries.iter().filter(|entry| entry["status"] == "accepted");
        let row = |entry: &Value| {
            let seq = entry["seq"].as_u64().unwrap_or(0);
            json!({"key": format!("{seq:020}"), "seq": seq, "row": {"command": entry["command"]}})
        };
        accepted.map(row).collect()
    }

    fn plant_rows(&self, plant: Plant, view: &str, rows: &mut Vec<Value>) {
        let bump = |value: &mut Value| *value = json!(value.as_i64().unwrap_or(0) + 1);
        let driven = !self.audited && self.tail() >= BEFORE;
        match (plant, view) {
            (Plant::WrongBalance, "balances") if self.audited => {
                rows.iter_mut().take(1).for_each(|row| bump(&mut row["row"]["balance"]));
            }
            (Plant::WrongRowSeq, "balances") if self.audited => {
                rows.iter_mut().take(1).for_each(|row| row["seq"] = json!(1));
            }
            (Plant::BalanceMissing, "balances") if self.audited => drop(rows.pop()),
            (Plant::BalanceExtra, "balances") if self.audited => {
                rows.push(balance_row("zz", &Account { balance: 0, movements: 0, seq: 1 }));
            }
            (Plant::WrongTotals, "totals") if self.audited => {
                rows.iter_mut().for_each(|row| bump(&mut row["row"]["rejected"]));
            }
            (Plant::RowsDisordered, _) if self.audited => rows.reverse(),
            (Plant::DisorderedSeen, _) if !self.audited => rows.reverse(),
            (Plant::TotalsMissing, "totals") if self.audited => rows.clear(),
            (Plant::StaleSeen, "balances") if driven => {
                for row in rows {
                    let name = row["key"].as_str().unwrap_or("").to_owned();
                    if let Some(older) = self.older.get(&name) {
                        *row = balance_row(&name, older);
                    }
                }
            }
            (Plant::OldAmountSeen, "balances") if driven => {
                for row in rows {
                    let older = self.older.get(row["key"].as_str().unwrap_or(""));
                    older.inspect(|older| row["row"]["balance"] = json!(older.balance));
                }
            }
            (Plant::MissingSeen, "balances") if driven => drop(rows.pop()),
            (Plant::LineMissingSeen, "statement") if driven => drop(rows.pop()),
            (Plant::WrongLineSeen, "statement") if driven => {
                rows.iter_mut().for_each(|row| bump(&mut row["row"]["amount"]));
            }
            (Plant::WrongTotalsSeen, "totals") if driven => {
                rows.iter_mut().for_each(|row| bump(&mut row["row"]["movements"]));
            }
            (Plant::TotalsMissingSeen, "totals") if driven => rows.clear(),
            _ => {}
        }
    }
}

fn balance_row(name: &str, account: &Account) -> Value {
    let Account { balance, movements, seq } = account;
    json!({"key": name, "seq": seq, "row": {"balance": balance, "movements": movements}})
}
