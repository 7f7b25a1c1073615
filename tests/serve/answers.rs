//! Answers: the same as those of the engine alone, whole and streamed, whoever else asks.

use serde_json::{Value, json};

use crate::{
    common::fixture,
    host::{Host, host, host_of, image, request, text},
};

/// The chunks of a stream, without the last, which must be `[DONE]`.
fn chunks(host: &Host, request: &Value) -> Vec<Value> {
    let (status, _, body) = host.send(&request.to_string(), &[]);
    assert_eq!(status, 200, "{body}");
    let mut lines: Vec<&str> = body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    assert_eq!(lines.pop(), Some("[DONE]"));
    lines.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn streamed(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

#[test]
fn an_answer_has_the_form_that_clients_read() {
    let host = host(|_| {});
    let images = [image(0), image(1)];
    let one = host.ask(&request(
        "What color is the ring?",
        &images[..1],
        json!({ "model": "demo", "secateur": { "method": "cdpruner", "visual_tokens": 64, "kept": true, "drawn": true },
                "tools": [], "user": "somebody", "response_format": null }),
    ));
    assert_eq!(text(&one), "Red");
    assert_eq!((&one["object"], &one["model"]), (&json!("chat.completion"), &json!("demo")));
    assert_eq!(one["choices"][0]["finish_reason"], "stop");
    let usage = &one["usage"];
    assert_eq!(
        usage["prompt_tokens_details"],
        json!({ "cached_tokens": 0, "image_tokens": 64, "image_tokens_unpruned": 576 })
    );
    assert_eq!(usage["total_tokens"], json!(usage["prompt_tokens"].as_u64().unwrap() + 1));
    let pruned = &one["secateur"];
    assert_eq!(
        (&pruned["method"], &pruned["visual_tokens"], &pruned["grid"]),
        (&json!("cdpruner"), &json!(64), &json!([24, 24]))
    );
    assert_eq!(pruned["kept"][0][0].as_array().unwrap().len(), 64);
    for drawing in ["kept", "scores"] {
        assert!(
            pruned["drawings"][0][drawing].as_str().unwrap_or_default().starts_with("data:image/png;base64,"),
            "{drawing}"
        );
    }
    for stage in ["queue", "vision", "prune", "prefill", "decode"] {
        assert!(one["timings"][stage].as_f64().is_some_and(|time| time >= 0.0), "{stage}");
    }
    // FastV drops tokens inside the decoder, and says which.
    let inside = host.ask(&request(
        "What color is the ring?",
        &images,
        json!({ "secateur": { "method": "fastv", "visual_tokens": 100, "kept": true } }),
    ));
    let kept: usize =
        inside["secateur"]["kept"].as_array().unwrap().iter().map(|image| image[0].as_array().unwrap().len()).sum();
    assert_eq!((kept, &inside["secateur"]["visual_tokens"]), (200, &json!(200)));
    // Text alone, and a conversation with a system's text.
    let plain = host.ask(&json!({ "messages": [{ "role": "user", "content": "What is in the image?" }] }));
    assert_eq!(plain["usage"]["prompt_tokens_details"]["image_tokens"], 0);
    let mut turns = request("What color is the ring?", &images[..1], json!({}));
    let messages = turns["messages"].as_array_mut().unwrap();
    messages.insert(0, json!({ "role": "system", "content": "You answer in one word." }));
    messages.push(json!({ "role": "assistant", "content": "Red" }));
    messages
        .push(json!({ "role": "user", "content": [{ "type": "text", "text": "How many rings are in the image?" }] }));
    assert_eq!(host.ask(&turns)["usage"]["prompt_tokens_details"]["image_tokens"], 576);
}

#[test]
fn a_stream_is_the_whole_answer_in_parts() {
    let host = host_of(&fixture("tiny-llava-1.5/llava-v1.5-tiny").display().to_string(), |settings| {
        settings.methods.retain(|name| !["cdpruner", "trim"].contains(name));
    });
    let ask = |fields: Value| request("What is it?", &[image(0)], fields);
    let more = json!({ "max_tokens": 24, "logprobs": true, "top_logprobs": 2 });
    let whole = host.ask(&ask(more.clone()));
    assert_eq!(
        (&whole["choices"][0]["finish_reason"], &whole["usage"]["completion_tokens"]),
        (&json!("length"), &json!(24))
    );
    let with = |name: &str, value: Value| {
        let mut fields = more.clone();
        fields[name] = value;
        fields
    };
    let mut fields = with("stream", json!(true));
    fields["stream_options"] = json!({ "include_usage": true });
    let parts = chunks(&host, &ask(fields));
    assert_eq!(streamed(&parts), text(&whole));
    assert_eq!(parts[0]["choices"][0]["delta"]["role"], "assistant");
    let last = &parts[parts.len() - 2];
    assert_eq!((&last["choices"][0]["finish_reason"], &last["secateur"]["method"]), (&json!("length"), &json!("none")));
    let usage = &parts[parts.len() - 1];
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(24)));
    // Log probabilities: one a token, the chosen one the likeliest; they sum to at most 1.
    let tokens = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(tokens.len(), 24);
    for token in tokens {
        let best = token["top_logprobs"].as_array().unwrap();
        assert_eq!((best.len(), &best[0]["logprob"]), (2, &token["logprob"]));
        let sum: f64 = best.iter().map(|token| token["logprob"].as_f64().unwrap().exp()).sum();
        assert!(sum > 0.0 && sum <= 1.0 + 1e-6, "{sum}");
    }
    let of_stream: usize =
        parts.iter().filter_map(|part| part["choices"][0]["logprobs"]["content"].as_array()).map(Vec::len).sum();
    assert_eq!(of_stream, 24);
    // A stop text ends the answer before it, streamed or not.
    let answer = text(&whole);
    let middle: Vec<char> = answer.chars().skip(answer.chars().count() / 2).take(3).collect();
    let stop: String = middle.into_iter().collect();
    let expected = answer.split(&stop).next().unwrap();
    let stopped = host.ask(&ask(with("stop", json!(["never to be found", stop]))));
    assert_eq!((text(&stopped), &stopped["choices"][0]["finish_reason"]), (expected, &json!("stop")));
    let mut fields = with("stop", json!(stop));
    fields["stream"] = json!(true);
    assert_eq!(streamed(&chunks(&host, &ask(fields))), expected);
    // A seed decides the draw.
    let drawn =
        |seed: u64| text(&host.ask(&ask(json!({ "max_tokens": 12, "temperature": 2.0, "seed": seed })))).to_owned();
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

/// Many clients at once, with all methods, budgets and images: everyone's answer is that of the same request alone.
#[test]
fn requests_side_by_side_are_answered_as_if_they_were_alone() {
    let questions = ["What color is the ring?", "What is in the image?", "How many rings are in the image?"];
    let methods =
        ["none", "fastervlm", "vispruner", "cdpruner", "datp", "divprune", "visionzip", "trim", "fastv", "grid"];
    let requests: Vec<Value> = (0..40)
        .map(|i| {
            let pruning = match methods[i % methods.len()] {
                "none" => json!({ "method": "none" }),
                method => {
                    let budget = [29, 64, 128][i % 3];
                    json!({ "method": method, "visual_tokens": budget, "kept": true })
                }
            };
            request(questions[i / 2 % 3], &[image(i as u64 % 4)], json!({ "secateur": pruning }))
        })
        .collect();
    let shown = |answer: &Value| (text(answer).to_owned(), answer["secateur"].clone());
    let alone: Vec<_> = {
        let host = host(|settings| settings.limits.batch = 1);
        requests.iter().map(|request| shown(&host.ask(request))).collect()
    };
    let host = host(|_| {});
    let together: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = requests.iter().map(|request| scope.spawn(|| shown(&host.ask(request)))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    for (i, (alone, together)) in alone.iter().zip(&together).enumerate() {
        assert_eq!(alone, together, "request {i}");
    }
    let metrics = host.get("/metrics").1;
    let parsed = prometheus_parse::Scrape::parse(metrics.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let value =
        |name: &str| parsed.samples.iter().find(|sample| sample.metric == name).map(|sample| sample.value.clone());
    assert_eq!(value("secateur_requests_total"), Some(prometheus_parse::Value::Counter(40.0)));
    assert_eq!(value("secateur_queue_length"), Some(prometheus_parse::Value::Gauge(0.0)));
    assert!(matches!(value("secateur_time_to_first_token_seconds"), Some(prometheus_parse::Value::Histogram(_))));
    let Some(prometheus_parse::Value::Counter(hits)) = value("secateur_encoder_cache_hits_total") else {
        panic!("{metrics}")
    };
    assert!(hits > 0.0, "{metrics}");
}

#[test]
fn the_page_and_the_description_are_there() {
    let host = host(|_| {});
    let (status, page) = host.get("/");
    assert!(
        status == 200
            && page.contains("<title>Secateur</title>")
            && !page.contains("http:")
            && !page.contains("https:")
    );
    let described: Value = serde_json::from_str(&host.get("/openapi.json").1).unwrap();
    for path in described["paths"].as_object().unwrap().keys().filter(|path| !path.contains("chat")) {
        let path = path.replace("{name}", "demo");
        assert_eq!(host.get(&path).0, 200, "{path}");
    }
    let samples: Value = serde_json::from_str(&host.get("/samples").1).unwrap();
    assert_eq!(samples.as_array().unwrap().len(), 4);
    for path in ["/nothing", "/samples/4.png", "/samples/-1.png", "/v1/models/other"] {
        let (status, body) = host.get(path);
        assert_eq!(status, 404, "{path}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["error"]["message"].is_string(), "{path}");
    }
    assert_eq!(host.get("/v1/chat/completions").0, 405);
}
