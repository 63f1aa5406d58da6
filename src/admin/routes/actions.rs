//! What a node is told to do: `POST` on the socket. A node that does not do it answers why (409).

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::{Node, Query, Shared, refusal};

/// Makes the handler of an action.
type Action = fn() -> MethodRouter<Arc<Shared>>;

/// Every action by its path.
pub(super) const ACTIONS: [(&str, Action); 7] = [
    ("/v1/leave", || post(leave)),
    ("/v1/form", || post(form)),
    ("/v1/forget", || post(forget)),
    ("/v1/cluster", || post(set_fact)),
    ("/v1/keys/add", || post(add_key)),
    ("/v1/keys/use", || post(use_key)),
    ("/v1/keys/remove", || post(remove_key)),
];

/// What only the socket shows.
pub(super) fn private() -> Router<Arc<Shared>> {
    Router::new().route("/v1/keys", get(keys))
}

fn wrong(why: String) -> Response {
    refusal(StatusCode::BAD_REQUEST, why)
}

fn acted(outcome: Result<impl Serialize, String>) -> Response {
    match outcome {
        Ok(done) => Json(done).into_response(),
        Err(why) => refusal(StatusCode::CONFLICT, why),
    }
}

async fn leave(State(node): Node, RawQuery(query): RawQuery) -> Response {
    match Query::of(query).timeout() {
        Ok(timeout) => acted(node.source.leave(timeout).await),
        Err(why) => wrong(why),
    }
}

async fn form(State(node): Node) -> Response {
    acted(node.source.form().await.map(|()| json!({})))
}

async fn forget(State(node): Node, RawQuery(query): RawQuery) -> Response {
    match Query::of(query).text("member") {
        Ok(member) => acted(node.source.forget(member).await.map(|()| json!({}))),
        Err(why) => wrong(why),
    }
}

async fn set_fact(State(node): Node, RawQuery(query): RawQuery) -> Response {
    let query = Query::of(query);
    match query.text("name").and_then(|name| Ok((name, query.text("value")?))) {
        Ok((name, value)) => acted(node.source.set_fact(name, value).await),
        Err(why) => wrong(why),
    }
}

async fn keys(State(node): Node) -> Response {
    acted(node.source.keys().await)
}

async fn add_key(State(node): Node, contents: Bytes) -> Response {
    acted(node.source.add_key(contents).await)
}

async fn use_key(State(node): Node, RawQuery(query): RawQuery) -> Response {
    match Query::of(query).key_id() {
        Ok(id) => acted(node.source.use_key(id).await),
        Err(why) => wrong(why),
    }
}

async fn remove_key(State(node): Node, RawQuery(query): RawQuery) -> Response {
    match Query::of(query).key_id() {
        Ok(id) => acted(node.source.remove_key(id).await),
        Err(why) => wrong(why),
    }
}
