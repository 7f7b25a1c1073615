//! The program: its line of stdout, SIGTERM in the middle of an answer, and flags that cannot be.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::json;

use crate::{
    common::fixture,
    host::{image, request},
};

fn start(flags: &[&str]) -> (Child, String) {
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.args(["serve", "--port", "0"]).args(flags).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().trim_start_matches("http://").to_owned())
}

#[cfg(unix)]
#[test]
fn answers_in_flight_end_after_sigterm() {
    let model = fixture("tiny-llava-1.5/llava-v1.5-tiny").display().to_string();
    let (mut child, address) = start(&["--model", &model]);
    while !TcpStream::connect(&address).is_ok_and(|mut stream| {
        let mut answer = String::new();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let body = request("What is it?", &[image(0)], json!({ "stream": true, "max_tokens": 300 })).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = vec![0; 64];
    let length = client.read(&mut answer).unwrap();
    assert!(length > 0);
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn what_cannot_be_is_said_before_the_model_is_read() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let here = tempfile::tempdir().unwrap();
    let empty = here.path().join("keys");
    std::fs::write(&empty, "# none\n").unwrap();
    let empty = empty.display().to_string();
    for (flags, code, words) in [
        (&["--port", &port][..], 1, "something listens there already; --port takes another one"),
        (&["--host", "not a host"], 2, "--host not a host"),
        (&["--port", "0", "--batch-size", "0"], 2, "--batch-size"),
        (&["--port", "0", "--media-path", "/none"], 2, "--media-path /none: there is no such folder"),
        (&["--port", "0", "--api-key-file", &empty], 1, "there is no key in it"),
        (&["--port", "0", "--api-key-file", "/none"], 1, "/none: the file with keys cannot be read"),
        (&["--port", "0", "--method", "fastervlm"], 2, "--tokens"),
    ] {
        let output = Command::cargo_bin("secateur").unwrap().arg("serve").args(flags).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {stderr}");
        assert!(stderr.contains(words) && output.stdout.is_empty(), "{flags:?}: {stderr}");
    }
}
