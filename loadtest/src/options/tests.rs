//! Options that do not fit together are refused.

use super::*;

fn check(more: &str) -> Result<(), OptionsError> {
    let line = format!("loadtest run --target http://127.0.0.1:1 --rate 100 {more}");
    match Options::try_parse_from(line.split(' ').filter(|word| !word.is_empty())) {
        Ok(Options { task: Task::Run(run) }) => run.check(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn compatible_options_are_accepted() {
    for more in [
        "",
        "--batch 500",
        "--batch 100 --connections 64 --batch-of-one-tenant",
        "--payload 65536 --batch 15",
        "--tenants 1000000",
        "--arrivals search",
        "--samples 0",
        "--arrivals search --samples 0 --slo accept\u{a0}p99\u{a0}1s",
    ] {
        assert_eq!(check(more), Ok(()), "{more}");
    }
}

#[test]
fn incompatible_options_are_refused() {
    use OptionsError::*;
    for (more, error) in [
        ("--batch 0", Batch(0)),
        ("--batch 501", Batch(501)),
        ("--payload 65537", Payload(65_537)),
        ("--payload 65536 --batch 16", Request { batch: 16, payload: 65_536 }),
        ("--tenants 1000000 --users 21", Users(21_000_000)),
        ("--threads 5 --connections 4", Connections { threads: 5, connections: 4 }),
        ("--duration 0s", Duration),
        ("--arrivals search --samples 0", Unsampled("view p99 < 100ms".into())),
        (
            "--workload w.yaml --rejected 0.1",
            OfLedger { option: "--rejected", instead: "put such commands into `mix`" },
        ),
        (
            "--workload w.yaml --payload 10",
            OfLedger { option: "--payload", instead: "use text(count)" },
        ),
        ("--tenants 1 --users 1 --batch 100 --connections 64", UnderWay { ids: 6_400.0, users: 7 }),
    ] {
        assert_eq!(check(more), Err(error), "{more}");
    }
    assert_eq!(check("--tenants 1 --users 7 --batch 100 --connections 64"), Ok(()));
}

#[test]
fn bad_values_are_refused() {
    for (flag, value) in [
        ("--rate", "-1"),
        ("--rate", "NaN"),
        ("--duplicates", "1.1"),
        ("--org-prefix", "a/b"),
        ("--name", ""),
        ("--name", "ci+2"),
        ("--audit-sample", "0"),
        ("--slo", "view p98 1s"),
        ("--duration", "20"),
        ("--tenants", "0"),
    ] {
        let line = ["loadtest", "run", "--target", "http://a", "--rate", "1"];
        let line = line.into_iter().filter(|word| *word != flag).chain([flag, value]);
        assert!(Options::try_parse_from(line).is_err(), "{flag} {value}");
    }
}
