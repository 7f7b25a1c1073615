//! Wrong requests, each with its status, its code and the field that is to blame.

use serde_json::{Value, json};

use crate::host::{host, image, request, text};

#[test]
fn wrong_requests_are_refused_in_words() {
    let host = host(|settings| settings.methods.retain(|name| *name != "trim"));
    let with = |fields: Value| request("What is it?", &[image(0)], fields).to_string();
    let shown = |url: &str| request("What is it?", &[url.to_owned()], json!({})).to_string();
    let messages = |messages: Value| json!({ "messages": messages }).to_string();
    let user = |content: Value| messages(json!([{ "role": "user", "content": content }]));
    for (body, status, code, param) in [
        (String::new(), 400, "invalid_json", None),
        ("{\"messages\": [".to_owned(), 400, "invalid_json", None),
        ("[".repeat(10_000), 400, "invalid_json", None),
        (
            // Fields that nobody reads may be as deep as they like.
            format!("{{\"messages\": [], \"x\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000)),
            400,
            "invalid_value",
            Some("messages"),
        ),
        (
            format!("{{\"messages\": [], \"secateur\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000)),
            400,
            "invalid_json",
            None,
        ),
        ("{}".to_owned(), 400, "invalid_value", None),
        (messages(json!([])), 400, "invalid_value", Some("messages")),
        (messages(json!("hello")), 400, "invalid_value", Some("messages")),
        (user(json!(3)), 400, "invalid_value", Some("messages[0].content")),
        (user(json!([{ "type": "input_audio" }])), 400, "invalid_value", Some("messages[0].content[0].type")),
        (user(json!([{ "type": "image_url" }])), 400, "invalid_value", Some("messages[0].content[0].image_url")),
        (user(json!("What is <image>?")), 400, "invalid_value", Some("messages")),
        (messages(json!([{ "role": "tool", "content": "x" }])), 400, "invalid_value", Some("messages[0].role")),
        (messages(json!([{ "role": "assistant", "content": "x" }])), 400, "invalid_value", Some("messages[0]")),
        (with(json!({ "model": "gpt-4o" })), 404, "model_not_found", Some("model")),
        (with(json!({ "model": "x\r\nSet-Cookie: a=b" })), 404, "model_not_found", Some("model")),
        (with(json!({ "n": 2 })), 400, "invalid_value", Some("n")),
        (with(json!({ "max_tokens": 0 })), 400, "invalid_value", Some("max_tokens")),
        (with(json!({ "max_tokens": -1 })), 400, "invalid_value", Some("max_tokens")),
        (with(json!({ "temperature": -0.5 })), 400, "invalid_value", Some("temperature")),
        (with(json!({ "temperature": "hot" })), 400, "invalid_value", Some("temperature")),
        (with(json!({ "top_p": 0 })), 400, "invalid_value", Some("top_p")),
        (with(json!({ "stop": "" })), 400, "invalid_value", Some("stop")),
        (with(json!({ "top_logprobs": 2 })), 400, "invalid_value", Some("top_logprobs")),
        (with(json!({ "logprobs": true, "top_logprobs": 21 })), 400, "invalid_value", Some("top_logprobs")),
        (
            with(json!({ "secateur": { "method": "trim", "visual_tokens": 64 } })),
            400,
            "invalid_value",
            Some("secateur.method"),
        ),
        (with(json!({ "secateur": { "visual_tokens": 577 } })), 400, "invalid_value", Some("secateur.visual_tokens")),
        (request(&"word ".repeat(3000), &[], json!({})).to_string(), 400, "context_length_exceeded", Some("messages")),
        (shown("data:image/png;base64,AAAA"), 422, "invalid_image", Some("messages[0].content[0].image_url")),
        (shown("data:image/png;base64,"), 422, "invalid_image", Some("messages[0].content[0].image_url")),
        (shown("data:image/png,AAAA"), 400, "invalid_value", Some("messages[0].content[0].image_url")),
        (shown("http://127.0.0.1/x.png"), 400, "invalid_value", Some("messages[0].content[0].image_url")),
        (shown("file:///etc/passwd"), 400, "invalid_value", Some("messages[0].content[0].image_url")),
        (shown("photo.jpg"), 400, "invalid_value", Some("messages[0].content[0].image_url")),
    ] {
        let start = &body[..body.len().min(200)];
        let (found, _, answer) = host.send(&body, &[]);
        assert_eq!(found, status, "{start}: {answer}");
        let error = &serde_json::from_str::<Value>(&answer).unwrap()["error"];
        assert_eq!(
            (&error["code"], error["param"].as_str().filter(|param| *param != ".")),
            (&json!(code), param),
            "{start}: {answer}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.len() > 10 && !message.contains("serde") && !message.contains("expected value"), "{message}");
    }
    assert_eq!(host.send("{}", &[("Content-Type", "text/plain")]).0, 415);
    assert_eq!(host.send("{}", &[("Content-Encoding", "gzip")]).0, 415);
    // None of this has touched the server.
    assert_eq!(text(&host.ask(&request("What color is the ring?", &[image(0)], json!({})))), "Red");
}

#[test]
fn only_keys_are_let_in() {
    let host = host(|settings| settings.keys = secateur::serve::Keys::new("secret-of-the-tests\nanother"));
    let body = request("What color is the ring?", &[image(0)], json!({})).to_string();
    for (header, status) in [
        (None, 401),
        (Some("Bearer wrong"), 401),
        (Some("Bearer secret-of-the-test"), 401),
        (Some("Basic secret-of-the-tests"), 401),
        (Some("Bearer secret-of-the-tests"), 200),
        (Some("Bearer another"), 200),
    ] {
        let headers: Vec<(&str, &str)> = header.into_iter().map(|value| ("Authorization", value)).collect();
        let (found, _, answer) = host.send(&body, &headers);
        assert_eq!(found, status, "{header:?}: {answer}");
        assert!(!answer.contains("secret-of"), "{answer}");
    }
    for (path, status) in
        [("/v1/models", 401), ("/v1/models/demo", 401), ("/metrics", 401), ("/health", 200), ("/", 200)]
    {
        assert_eq!(host.get(path).0, status, "{path}");
    }
    assert!(!host.log.lock().unwrap().join("\n").contains("secret-of"));
}

#[test]
fn pages_of_other_hosts_may_ask_where_they_are_let() {
    let preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: https://chat.example.org\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,authorization\r\nConnection: close\r\n\r\n";
    assert!(!host(|_| {}).raw(preflight.as_bytes()).to_lowercase().contains("access-control"));
    let host = host(|settings| {
        settings.cors = Some("https://chat.example.org".to_owned());
        settings.keys = secateur::serve::Keys::new("key");
    });
    let answer = host.raw(preflight.as_bytes()).to_lowercase();
    assert!(
        answer.starts_with("http/1.1 200") && answer.contains("access-control-allow-origin: https://chat.example.org"),
        "{answer}"
    );
    let other = host.raw(preflight.replace("chat.example", "evil.example").as_bytes()).to_lowercase();
    assert!(!other.contains("evil.example"), "{other}");
}
