//! A server that answers by a script, and remembers the requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// A request that the server received.
pub(crate) struct Received {
    /// Method and target, such as `POST /commands`.
    pub(crate) what: String,
    pub(crate) body: String,
}

/// The answer to a request.
pub(crate) enum Reply {
    /// This status, these header lines and this body.
    Status(u16, &'static str, String),
    /// No answer: the server closes the connection.
    Nothing,
}

/// The server. It runs until the process ends.
pub(crate) struct Scripted {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Received>>>,
}

impl Scripted {
    /// Starts a server that answers each request with `answer`, which gets the request's number,
    /// counted from 0.
    pub(crate) fn start(answer: impl FnMut(usize, &Received) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has one"));
        let asked: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (all, answer) = (Arc::clone(&asked), Arc::new(Mutex::new(answer)));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream.expect("it connects"));
                    while let Some(request) = read(&mut stream) {
                        let mut all = all.lock().expect("no thread panics");
                        let reply = answer.lock().expect("no thread panics")(all.len(), &request);
                        all.push(request);
                        drop(all);
                        let Reply::Status(status, headers, body) = reply else { return };
                        let length = body.len();
                        let head =
                            format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}");
                        write!(stream.get_mut(), "{head}\r\n\r\n{body}").expect("it is read");
                    }
                });
            }
        });
        Self { url, asked }
    }

    /// The bodies of the requests so far whose method and target begin with `what`.
    pub(crate) fn bodies(&self, what: &str) -> Vec<String> {
        let asked = self.asked.lock().expect("no thread panics");
        let like = asked.iter().filter(|asked| asked.what.starts_with(what));
        like.map(|asked| asked.body.clone()).collect()
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some((_, bytes)) = line.to_ascii_lowercase().split_once("content-length: ") {
            length = bytes.trim().parse().expect("a number");
        }
        if line == "\r\n" {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let what = head.split(" HTTP/").next().unwrap_or("").to_owned();
    Some(Received { what, body: String::from_utf8(body).expect("it is text") })
}

/// The commands of a batch.
pub(crate) fn requests(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).expect("a request a line")).collect()
}

/// 202 with a result per command: a receipt whose seq is the id, or a problem with the status that
/// `refused` gives.
pub(crate) fn receipts(body: &str, refused: impl Fn(u64) -> Option<u16>) -> Reply {
    let results = requests(body).into_iter().map(|request| {
        let id = request["id"].as_u64().expect("an id");
        match refused(id) {
            Some(status) => json!({"problem": {"type": "urn:x", "status": status, "detail": "no"}}),
            None => json!({"log": "ledger/org:acme", "seq": id}),
        }
    });
    let body = json!({"results": results.collect::<Vec<Value>>()}).to_string();
    Reply::Status(202, "", body)
}
