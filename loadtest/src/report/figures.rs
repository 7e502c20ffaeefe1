//! Formats numbers for people. A value that is not finite is shown as a dash.

/// The text of a missing number.
pub(super) const NONE: &str = "–";

/// From here on, numbers are shown in scientific notation.
const WRITTEN_OUT_MAX: f64 = 1e12;

/// `12,345`.
pub(super) fn count(of: impl Into<i128>) -> String {
    let of = of.into();
    let digits = of.unsigned_abs().to_string();
    let mut grouped = String::from(if of < 0 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three significant digits, with as few decimals as that needs: `0.123`, `4.56`, `45.6`, `4,560`.
pub(super) fn number(of: f64) -> String {
    let size = of.abs();
    if !of.is_finite() {
        NONE.to_owned()
    } else if size >= WRITTEN_OUT_MAX {
        format!("{of:.2e}")
    } else if size >= 99.95 {
        count(of.round() as i128)
    } else if size >= 9.995 {
        format!("{of:.1}")
    } else if size >= 0.9995 {
        format!("{of:.2}")
    } else if size > 0.0 {
        format!("{of:.3}")
    } else {
        "0".to_owned()
    }
}

/// As [`number`], without trailing zeros: for numbers that were chosen, not measured.
pub(super) fn plain(of: f64) -> String {
    let mut text = number(of);
    if text.contains('.') && !text.contains('e') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

/// A time in ms, in a suitable unit: `0.123 ms`, `45.6 ms`, `4.56 s`.
pub(super) fn duration(ms: f64) -> String {
    match ms {
        ms if !ms.is_finite() => NONE.to_owned(),
        ms if ms.abs() < 999.5 => format!("{} ms", number(ms)),
        ms => format!("{} s", number(ms / 1e3)),
    }
}

/// As [`duration`], without trailing zeros.
pub(super) fn round_duration(ms: f64) -> String {
    match ms {
        ms if !ms.is_finite() => NONE.to_owned(),
        ms if ms.abs() < 999.5 => format!("{} ms", plain(ms)),
        ms if ms.abs() < 1e8 => format!("{} s", plain(ms / 1e3)),
        ms => format!("{:.0e} s", ms / 1e3),
    }
}

/// A share of 1, in per cent.
pub(super) fn share(of: f64) -> String {
    match of {
        of if !of.is_finite() => NONE.to_owned(),
        of => format!("{} %", plain(of * 100.0)),
    }
}

/// `7.6 GiB`.
pub(super) fn bytes(of: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if of < 1024 {
        return format!("{of} B");
    }
    let power = (of.ilog2() / 10) as usize;
    let size = of as f64 / 1024f64.powi(power as i32);
    format!("{} {}", plain((size * 10.0).round() / 10.0), UNITS[power - 1])
}

/// `1 log`, `2 logs`.
pub(super) fn counted(of: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(of), if of == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_keep_three_digits() {
        for (of, text) in [
            (0.0, "0"),
            (0.0004, "0.000"),
            (0.1234, "0.123"),
            (0.9999, "1.00"),
            (4.5678, "4.57"),
            (9.996, "10.0"),
            (45.678, "45.7"),
            (99.96, "100"),
            (1234.5, "1,235"),
            (999_999.5, "1,000,000"),
            (-1234.0, "-1,234"),
            (3.2e15, "3.20e15"),
            (f64::NAN, NONE),
            (f64::INFINITY, NONE),
        ] {
            assert_eq!(number(of), text, "{of}");
        }
        assert_eq!(count(i128::MIN), "-170,141,183,460,469,231,731,687,303,715,884,105,728");
        assert_eq!(count(0), "0");
    }

    #[test]
    fn a_number_has_a_suitable_unit() {
        assert_eq!(duration(0.25), "0.250 ms");
        assert_eq!(duration(45.67), "45.7 ms");
        assert_eq!(duration(999.7), "1.00 s");
        assert_eq!(duration(f64::NAN), NONE);
        assert_eq!(round_duration(2000.0), "2 s");
        assert_eq!(round_duration(0.5), "0.5 ms");
        assert_eq!(round_duration(1e12), "1e9 s");
        assert_eq!(share(0.01), "1 %");
        assert_eq!(share(0.125), "12.5 %");
        assert_eq!(share(1.0), "100 %");
        assert_eq!(bytes(64), "64 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(8_201_000_000), "7.6 GiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
        assert_eq!(plain(2000.0), "2,000");
        assert_eq!(plain(1.1), "1.1");
        assert_eq!(counted(1, "log", "logs"), "1 log");
        assert_eq!(counted(1200, "log", "logs"), "1,200 logs");
    }
}
