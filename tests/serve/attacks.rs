//! Clients that lie, wait or send too much.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::host::{Host, host, image, request, text};

fn head(length: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}Connection: close\r\n\r\n"
    )
}

fn still_answers(host: &Host) {
    assert_eq!(text(&host.ask(&request("What color is the ring?", &[image(0)], json!({})))), "Red");
}

#[test]
fn bodies_that_lie_about_their_length_are_refused() {
    let host = host(|settings| settings.patience = Duration::from_millis(300));
    // Too large by its own word, refused before it is read; and without a word, refused once it is.
    assert!(host.raw(head("Content-Length: 52428801\r\n").as_bytes()).starts_with("HTTP/1.1 413"));
    let mut chunked = head("Transfer-Encoding: chunked\r\n").into_bytes();
    for _ in 0..51 {
        chunked.extend(b"100000\r\n");
        chunked.resize(chunked.len() + (1 << 20), b' ');
        chunked.extend(b"\r\n");
    }
    let answer = host.raw(&chunked);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    // Shorter than it says: the rest does not come in time.
    let answer = host.raw(format!("{}{{}}", head("Content-Length: 100\r\n")).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // Two lengths, and both kinds of length, which proxies may read otherwise.
    for length in ["Content-Length: 2\r\nContent-Length: 3\r\n", "Content-Length: -1\r\n", "Content-Length: 2x\r\n"] {
        let answer = host.raw(format!("{}{{}}", head(length)).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{length}: {answer}");
    }
    still_answers(&host);
}

#[test]
fn slow_clients_hold_nobody_up() {
    let host = host(|settings| settings.patience = Duration::from_millis(400));
    let drip = |start: &[u8], drop: &[u8]| {
        let mut stream = TcpStream::connect(host.address).unwrap();
        stream.write_all(start).unwrap();
        let began = Instant::now();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut found = Vec::new();
        while began.elapsed() < Duration::from_secs(10) {
            let mut buffer = [0; 1024];
            match stream.read(&mut buffer) {
                Ok(0) => return (began.elapsed(), String::from_utf8_lossy(&found).into_owned()),
                Ok(length) => found.extend(&buffer[..length]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(_) => return (began.elapsed(), String::from_utf8_lossy(&found).into_owned()),
            }
            let _ = stream.write_all(drop);
        }
        panic!("the server waited for ten seconds");
    };
    let (time, _) = drip(b"POST /v1/chat/completions HTTP/1.1\r\nX-Slow: ", b"a");
    assert!(time < Duration::from_secs(5), "{time:?}");
    let (time, answer) = drip(head("Content-Length: 5000\r\n").as_bytes(), b" ");
    assert!(time < Duration::from_secs(5) && answer.starts_with("HTTP/1.1 408"), "{time:?}: {answer}");
    still_answers(&host);
}

#[test]
fn images_that_unpack_to_gigabytes_are_refused() {
    let host = host(|_| {});
    // A PNG whose header says 60,000 × 60,000 pixels.
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    file.extend(60_000u32.to_be_bytes());
    file.extend(60_000u32.to_be_bytes());
    file.extend([8, 2, 0, 0, 0]);
    let sum = file[12..].iter().fold(!0u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    });
    file.extend((!sum).to_be_bytes());
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    let url = format!("data:image/png;base64,{}", STANDARD.encode(file));
    let (status, _, answer) = host.send(&request("What is it?", &[url], json!({})).to_string(), &[]);
    assert_eq!(status, 422, "{answer}");
    assert!(answer.contains("60000×60000 pixels are too many"), "{answer}");
    still_answers(&host);
}

#[test]
fn headers_cannot_be_smuggled_in() {
    let host = host(|_| {});
    let answer = host.raw(b"GET /v1/models/x%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let head = answer.split("\r\n\r\n").next().unwrap();
    assert!(head.starts_with("HTTP/1.1 404") && !head.to_lowercase().contains("set-cookie"), "{answer}");
    let many = format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(64 << 10));
    assert!(host.raw(many.as_bytes()).starts_with("HTTP/1.1 431"));
    assert!(host.raw(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03").len() < 200);
    still_answers(&host);
}
