//! The addresses of a server.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State as Shared},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
    middleware::{Next, from_fn, from_fn_with_state, map_response},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::{api::ApiError, body::drain, chat::completions, page, state::State};
use crate::pruner::{Params, methods};

/// All addresses. Those below `/v1` and the metrics need a key, where the server has keys.
pub(super) fn routes(state: Arc<State>) -> Router {
    let guarded = Router::new()
        .route("/v1/chat/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(one_model))
        .route("/metrics", get(metrics))
        .route_layer(from_fn_with_state(state.clone(), check_key));
    let router = guarded
        .route("/health", get(health))
        .merge(page::routes())
        .fallback(|| async {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is nothing at this address; /openapi.json lists those that are there",
            )
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this address takes another method")
        })
        .with_state(state.clone())
        .layer(map_response(|mut response: Response| async {
            let nosniff = (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
            response.headers_mut().insert(nosniff.0, nosniff.1);
            response
        }))
        .layer(from_fn(json_errors));
    match cors(state.settings().cors.as_deref()) {
        Some(layer) => router.layer(layer),
        None => router,
    }
}

/// The permission for pages of other hosts to ask.
fn cors(origin: Option<&str>) -> Option<CorsLayer> {
    let origin: AllowOrigin = match origin? {
        "*" => Any.into(),
        origin => AllowOrigin::exact(HeaderValue::from_str(origin).ok()?),
    };
    let headers = [AUTHORIZATION, CONTENT_TYPE];
    Some(CorsLayer::new().allow_origin(origin).allow_methods([Method::GET, Method::POST]).allow_headers(headers))
}

/// Refuses requests without a key. The body of a refused request is thrown away.
async fn check_key(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if state.settings().keys.permit(given) {
        return next.run(request).await;
    }
    drain(&state, request.into_body()).await;
    let message = "a key is needed: send it as `Authorization: Bearer KEY`";
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response()
}

/// Gives the errors of the library that parses requests the form of all others.
async fn json_errors(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|form| form == "application/json");
    if status.is_client_error() && !is_json {
        return ApiError::new(status, "invalid_request", "the request cannot be read").into_response();
    }
    response
}

/// Whether the model is there.
async fn health(Shared(state): Shared<Arc<State>>) -> Response {
    let (status, word) = match state.served() {
        Ok(_) => (StatusCode::OK, "ready"),
        Err(error) => (error.status, error.code),
    };
    (status, Json(json!({ "status": word }))).into_response()
}

/// The served model by all its names.
async fn models(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let names = &state.settings().names;
    let data: Vec<Value> = names.iter().map(|name| model(&state, name)).collect();
    Json(json!({ "object": "list", "data": data }))
}

async fn one_model(
    Shared(state): Shared<Arc<State>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Json<Value>, ApiError> {
    if state.settings().names.contains(&name) {
        return Ok(Json(model(&state, &name)));
    }
    let message = format!("the model `{}` is not served here", crate::words::excerpt(&name));
    Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).about("model"))
}

/// A model in OpenAI's form, with what requests can ask of it.
fn model(state: &State, name: &str) -> Value {
    let mut model = json!({ "id": name, "object": "model", "created": state.began, "owned_by": "secateur" });
    if let Some(served) = state.ready.get() {
        let offer = &served.offer;
        let cards: Vec<Value> = methods(Params::default())
            .iter()
            .map(|method| method.card())
            .filter(|card| offer.methods.contains(&card.name))
            .map(|card| json!({ "name": card.name, "idea": card.idea }))
            .collect();
        model["secateur"] = json!({
            "methods": cards,
            "method": offer.usual.0,
            "visual_tokens": offer.usual.1,
            "tokens_of_an_item": offer.grid.tokens(),
            "context": served.context,
        });
    }
    model
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.text(state.queue.waiting()))
        .into_response()
}
