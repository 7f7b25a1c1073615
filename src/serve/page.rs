//! The page at `/`, its samples, and the description of the interface.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::Path,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY},
    },
    response::{Html, IntoResponse, Response},
    routing::get,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{api::ApiError, state::State};
use crate::{
    demo::{OPEN, Region, Scene, open_questions},
    image::png,
};

/// The page, which loads nothing from elsewhere.
const PAGE: &str = include_str!("page.html");
/// What the page may do: talk to its own server, and no other.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The description of the interface.
const OPENAPI: &str = include_str!("openapi.json");
/// The number of samples.
const SAMPLES: u64 = 4;
/// The objects in a sample.
const OBJECTS: usize = 4;

/// The page's addresses, which need no key: they tell nothing about a server but that it is one.
pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/", get(page))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .route("/samples", get(samples))
        .route("/samples/{name}", get(sample))
        .route("/openapi.json", get(|| async { ([(CONTENT_TYPE, "application/json")], OPENAPI) }))
}

async fn page() -> Response {
    let headers = [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer"), (CACHE_CONTROL, "no-cache")];
    (headers, Html(PAGE)).into_response()
}

/// A drawn scene, and questions about it.
fn scene(number: u64) -> (Scene, Vec<String>) {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    let scene = Scene::new(&mut random, OBJECTS, Region::WHOLE);
    let questions = (0..OPEN).filter_map(|which| open_questions(&mut random, &scene, which));
    let questions = questions.map(|question| question.text).collect();
    (scene, questions)
}

async fn samples() -> Json<Value> {
    let one = |number| json!({ "image": format!("/samples/{number}.png"), "questions": scene(number).1 });
    Json((0..SAMPLES).map(one).collect())
}

async fn sample(Path(name): Path<String>) -> Result<Response, ApiError> {
    let number = name.strip_suffix(".png").and_then(|number| number.parse().ok()).filter(|&number| number < SAMPLES);
    let absent = || ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is no such sample");
    let (scene, _) = scene(number.ok_or_else(absent)?);
    Ok(([(CONTENT_TYPE, "image/png"), (CACHE_CONTROL, "max-age=3600")], png(&scene.draw())).into_response())
}
