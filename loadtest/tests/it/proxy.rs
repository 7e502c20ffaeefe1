//! A proxy between client and target. It records requests, and cuts some connections instead of
//! passing on the answer: the request then has its effect, and the client does not know.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The maximum number of recorded bytes.
const HEARD_MAX: usize = 64 * 1024;

/// A proxy. It runs until the process ends.
pub(crate) struct Proxy {
    pub(crate) url: String,
    heard: Arc<Mutex<Vec<u8>>>,
    cut: Arc<AtomicUsize>,
}

impl Proxy {
    /// Cuts the connection at every `cut_every`-th answer; 0: never.
    pub(crate) fn start(target: &str, cut_every: usize) -> Self {
        let target: SocketAddr =
            target.trim_start_matches("http://").parse().expect("the target is an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (heard, cut) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let answers = Arc::new(AtomicUsize::new(0));
        let (hear, cuts) = (Arc::clone(&heard), Arc::clone(&cut));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                    continue;
                };
                let up =
                    (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                let hear = Arc::clone(&hear);
                thread::spawn(move || {
                    copy(up.0, up.1, |bytes| {
                        let mut heard = hear.lock().expect("no thread panics");
                        if heard.len() < HEARD_MAX {
                            heard.extend_from_slice(bytes);
                        }
                        true
                    });
                });
                let (answers, cuts) = (Arc::clone(&answers), Arc::clone(&cuts));
                thread::spawn(move || {
                    copy(server, client, |_| {
                        let number = answers.fetch_add(1, Ordering::Relaxed) + 1;
                        let is_cut = cut_every > 0 && number.is_multiple_of(cut_every);
                        cuts.fetch_add(usize::from(is_cut), Ordering::Relaxed);
                        !is_cut
                    });
                });
            }
        });
        Self { url, heard, cut }
    }

    /// The beginning of what clients sent.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().expect("no thread panics")).into_owned()
    }

    /// The number of connections that were cut.
    pub(crate) fn cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }
}

/// Copies until one side ends, or `hand_on` returns false.
fn copy(mut from: TcpStream, mut to: TcpStream, mut hand_on: impl FnMut(&[u8]) -> bool) {
    let mut piece = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        if !hand_on(&piece[..length]) || to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    // Either side may be closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
