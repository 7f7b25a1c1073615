//! Bounds: the queue, clients that go away, and long prompts beside others.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    common::fixture,
    host::{Host, host, host_of, image, request},
};

/// A server whose answers are long.
fn talkative(change: impl FnOnce(&mut secateur::serve::Settings)) -> Host {
    host_of(&fixture("tiny-llava-1.5/llava-v1.5-tiny").display().to_string(), |settings| {
        settings.methods.retain(|name| !["cdpruner", "trim"].contains(name));
        settings.decoding.max_new_tokens = 1000;
        change(settings);
    })
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let host = host(|settings| (settings.queue, settings.limits.batch) = (2, 1));
    let body = request("What is in the image?", &[image(0)], json!({})).to_string();
    let answers: Vec<(u16, Option<String>, String)> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..24).map(|_| scope.spawn(|| host.send(&body, &[]))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    let refused: Vec<_> = answers.iter().filter(|(status, ..)| *status == 429).collect();
    assert!(!refused.is_empty() && refused.len() <= 21, "{}", refused.len());
    assert!(refused.iter().all(|(_, retry, body)| retry.as_deref() == Some("1") && body.contains("rate_limit_error")));
    let texts: Vec<String> = answers
        .iter()
        .filter(|(status, ..)| *status == 200)
        .map(|(.., body)| serde_json::from_str::<Value>(body).unwrap()["choices"].to_string())
        .collect();
    assert_eq!(texts.len() + refused.len(), 24);
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let host = talkative(|settings| settings.limits.batch = 1);
    for stream in [true, false] {
        let body = request("What is it?", &[image(0)], json!({ "stream": stream })).to_string();
        let mut client = TcpStream::connect(host.address).unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.write_all((head + &body).as_bytes()).unwrap();
        if stream {
            let mut buffer = [0; 512];
            assert!(client.read(&mut buffer).unwrap() > 0);
        } else {
            std::thread::sleep(Duration::from_millis(200));
        }
        drop(client);
        let began = Instant::now();
        // 1,000 tokens take longer than this.
        host.ask(&request("What is it?", &[image(1)], json!({ "max_tokens": 1 })));
        let gone = || host.log.lock().unwrap().iter().filter(|line| line.starts_with("499")).count();
        while gone() < 1 + usize::from(!stream) {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", host.log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(host.get("/metrics").1.contains("secateur_running_requests 0"));
}
