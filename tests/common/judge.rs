//! A small server that speaks OpenAI's chat interface, as a judge.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

/// Status, and the text of a reply.
pub type Reply = (u16, String);

/// A server that answers what `answer` says to each request.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Value, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { url, requests }
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Value> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Value>>, answer: &dyn Fn(&Value, usize) -> Reply) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length, mut key) = (String::new(), 0, String::new());
    reader.read_line(&mut first).unwrap();
    assert!(first.starts_with("POST /v1/chat/completions "), "{first}");
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => value.trim().clone_into(&mut key),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut request: Value = serde_json::from_slice(&body).unwrap();
    request["key"] = key.into();
    let before = {
        let mut seen = seen.lock().unwrap();
        let text = &request["messages"][0]["content"];
        let before = seen.iter().filter(|other| other["messages"][0]["content"] == *text).count();
        seen.push(request.clone());
        before
    };
    // Reasoning models take none.
    let (status, text) = match request.get("temperature").map(Value::as_f64) {
        None | Some(Some(0.0..=2.0)) => answer(&request, before),
        _ => (400, "the temperature is from 0 to 2".to_owned()),
    };
    // As OpenAI does: the name of a model is answered with that of its version.
    let version = match request["model"].as_str() {
        Some("gpt-3.5-turbo") => "gpt-3.5-turbo-1106",
        other => other.unwrap_or_default(),
    };
    let body = match status {
        200 => json!({"model": version, "choices": [{"message": {"role": "assistant", "content": text}}]}).to_string(),
        _ => text,
    };
    let head =
        format!("HTTP/1.1 {status} x\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
}

/// What is said to the judge.
pub fn asked(request: &Value) -> &str {
    request["messages"][0]["content"].as_str().unwrap()
}
