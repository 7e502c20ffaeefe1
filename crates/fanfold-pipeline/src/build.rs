//! The name of the program that runs.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::Path;
use std::sync::LazyLock;

/// Bytes of the program per read. Source: our choice.
const BYTES_PER_READ: usize = 64 * 1024;

/// A name of the program that runs, for [`Env::build`](crate::ports::Env::build): a hash of its file. `None` if the file
/// cannot be read. The first call takes about 10 ms, for a file of 15 MB; later ones take none.
pub fn of_program() -> Option<&'static str> {
    static NAME: LazyLock<Option<String>> = LazyLock::new(|| match hash_of(&program()?) {
        Ok(hash) => Some(format!("{hash:016x}")),
        Err(error) => {
            tracing::warn!(%error, "the program cannot read its own file: views that another build has parked wait for an operator");
            None
        }
    });
    NAME.as_deref()
}

/// The file of the program. On Linux this is the one that runs, although a deployment has replaced it meanwhile.
fn program() -> Option<std::path::PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Some(running.to_owned()) } else { std::env::current_exe().ok() }
}

/// Equal for equal files. Another release of Rust may compute another hash, which makes another program, too.
fn hash_of(path: &Path) -> io::Result<u64> {
    let (mut file, mut hasher) = (File::open(path)?, DefaultHasher::new());
    let mut bytes = vec![0; BYTES_PER_READ];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hasher.finish()),
            n => hasher.write(&bytes[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_a_name_that_another_program_does_not_have() {
        let this = of_program().expect("the test's file can be read");
        assert_eq!(of_program(), Some(this));
        let other = hash_of(Path::new(file!())).or_else(|_| hash_of(Path::new("src/build.rs")));
        assert_ne!(this, format!("{:016x}", other.expect("this file can be read")));
    }
}
