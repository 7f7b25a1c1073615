//! A server in this process, and clients that talk to it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use secateur::{
    demo::{Region, Scene},
    engine::{Decoding, Limits},
    image::png,
    model::{Beside, LoadOptions, open},
    pruner::{Params, methods},
    serve::{Keys, Server, Settings, Stop},
};
use secateur_backends::Flex;
use serde_json::{Value, json};

/// A server that runs until it is dropped.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    /// The lines that it wrote.
    pub(crate) log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the server broke off");
    }
}

/// The usual settings of tests.
fn settings(log: &Arc<Mutex<Vec<String>>>) -> Settings {
    let lines = log.clone();
    Settings {
        names: vec!["demo".to_owned()],
        keys: Keys::default(),
        queue: 64,
        limits: Limits { batch: 8, step_rows: 256, ..Limits::default() },
        decoding: Decoding::greedy(64),
        seed: 0,
        usual: ("fastervlm", None),
        params: Params::default(),
        methods: methods(Params::default()).iter().map(|method| method.name()).collect(),
        missing: Vec::new(),
        remote_images: false,
        media_path: None,
        cors: None,
        grace: Duration::from_secs(20),
        patience: Duration::from_secs(20),
        log: Box::new(move |line| lines.lock().unwrap().push(line.to_owned())),
    }
}

/// A server of the checkpoint `model`, with changed settings.
pub(crate) fn host_of(model: &str, change: impl FnOnce(&mut Settings)) -> Host {
    let log = Arc::default();
    let mut settings = settings(&log);
    change(&mut settings);
    let server = Server::start(TcpListener::bind("127.0.0.1:0").unwrap(), settings).unwrap();
    let (address, stop, model) = (server.address(), server.stopper(), model.to_owned());
    let thread = std::thread::spawn(move || {
        let checkpoint = open(&model, Beside::default()).unwrap();
        let options = LoadOptions { joint: model == "demo", ..LoadOptions::default() };
        let model = checkpoint.load::<Flex>(options, &Default::default()).unwrap();
        server.run(&model).unwrap();
    });
    let host = Host { address, stop, thread: Some(thread), log };
    while host.get("/health").0 != 200 {
        std::thread::sleep(Duration::from_millis(10));
    }
    host
}

/// A server of the built-in checkpoint.
pub(crate) fn host(change: impl FnOnce(&mut Settings)) -> Host {
    host_of("demo", change)
}

impl Host {
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut response = agent.get(format!("http://{}{path}", self.address)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// The status, the headers and the body of the answer to bytes that are sent as they are; the connection is closed after them.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may answer, and close, before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a body with more headers; the status, the `Retry-After`, and the body of the answer.
    pub(crate) fn send(&self, body: &str, headers: &[(&str, &str)]) -> (u16, Option<String>, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = agent.post(format!("http://{}/v1/chat/completions", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("Content-Type", "application/json");
        }
        let mut response = request.send(body).unwrap();
        let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), retry, response.body_mut().read_to_string().unwrap())
    }

    /// The answer to a request, which must have one.
    pub(crate) fn ask(&self, request: &Value) -> Value {
        let (status, _, body) = self.send(&request.to_string(), &[]);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// An image as a data URL.
pub(crate) fn image(number: u64) -> String {
    use rand::SeedableRng;
    let scene = Scene::new(&mut rand_chacha::ChaCha8Rng::seed_from_u64(number), 4, Region::WHOLE);
    format!("data:image/png;base64,{}", STANDARD.encode(png(&scene.draw())))
}

/// A request about images, with more fields.
pub(crate) fn request(text: &str, images: &[String], fields: Value) -> Value {
    let mut parts: Vec<Value> =
        images.iter().map(|url| json!({ "type": "image_url", "image_url": { "url": url } })).collect();
    parts.push(json!({ "type": "text", "text": text }));
    let mut request = json!({ "messages": [{ "role": "user", "content": parts }] });
    for (name, value) in fields.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    request
}

/// The text of an answer.
pub(crate) fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}
