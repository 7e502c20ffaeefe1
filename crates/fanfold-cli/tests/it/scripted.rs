//! A server that answers by a script, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// A request.
pub(crate) struct Asked {
    /// As `POST /commands`.
    pub(crate) what: String,
    pub(crate) body: String,
}

/// How a request is answered.
pub(crate) enum Say {
    /// With this status, these header lines and this body.
    Status(u16, &'static str, String),
    /// Not at all: the connection is closed.
    Nothing,
}

/// It goes on until the process ends.
pub(crate) struct Scripted {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// Answers each request as `answer` says, given its number, from 0 on.
    pub(crate) fn start(answer: impl FnMut(usize, &Asked) -> Say + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has one"));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (all, answer) = (Arc::clone(&asked), Arc::new(Mutex::new(answer)));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream.expect("it connects"));
                    while let Some(request) = read(&mut stream) {
                        let mut all = all.lock().expect("no thread panics");
                        let say = answer.lock().expect("no thread panics")(all.len(), &request);
                        all.push(request);
                        drop(all);
                        let Say::Status(status, headers, body) = say else { return };
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

    /// The requests so far that began like this: their bodies.
    pub(crate) fn bodies(&self, what: &str) -> Vec<String> {
        let asked = self.asked.lock().expect("no thread panics");
        let like = asked.iter().filter(|asked| asked.what.starts_with(what));
        like.map(|asked| asked.body.clone()).collect()
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
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
    Some(Asked { what, body: String::from_utf8(body).expect("it is text") })
}

/// The requests of a batch.
pub(crate) fn requests(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).expect("a request a line")).collect()
}

/// 202, with receipts in a log whose seqs are the ids; a problem for ids of `refused`.
pub(crate) fn receipts(body: &str, refused: impl Fn(u64) -> Option<u16>) -> Say {
    let results = requests(body).into_iter().map(|request| {
        let id = request["id"].as_u64().expect("an id");
        match refused(id) {
            Some(status) => json!({"problem": {"type": "urn:x", "status": status, "detail": "no"}}),
            None => json!({"log": "ledger/org:acme", "seq": id}),
        }
    });
    let body = json!({"results": results.collect::<Vec<Value>>()}).to_string();
    Say::Status(202, "", body)
}
