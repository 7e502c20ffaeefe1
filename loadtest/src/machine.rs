//! The machine on which the generator runs.

use hyper::Uri;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::report::Machine;

/// This machine, and whether the target is on it.
pub(crate) fn this(target: &str) -> Machine {
    let what = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(what);
    let unknown = || "unknown".to_owned();
    Machine {
        cpu: system.cpus().first().map_or_else(unknown, |cpu| cpu.brand().to_owned()),
        cores: system.cpus().len(),
        memory_bytes: system.total_memory(),
        os: System::long_os_version().unwrap_or_else(unknown),
        shared_with_target: is_loopback(target),
    }
}

fn is_loopback(target: &str) -> bool {
    let uri: Option<Uri> = target.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_target_is_on_this_machine() {
        for (target, is) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost:1/a", true),
            ("http://[::1]:8080", true),
            ("https://api.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(target), is, "{target}");
        }
    }
}
