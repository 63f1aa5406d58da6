//! The paths of admin HTTP.
//!
//! - `GET /` the status page · `/metrics` Prometheus text · `/healthz` 200 while the process works ·
//!   `/readyz` 200, or 503 with a reason a line
//! - `GET /v1/status` · `/v1/members` · `/v1/ring` · `/v1/ring/locate?key=` ·
//!   `/v1/explain?key=[&db=]` · `/v1/peers` · `/v1/slots[?from=&to=&role=]` · `/v1/stats` · `/v1/sd` ·
//!   `/v1/cluster`
//! - `POST /v1/leave[?timeout=]` · `/v1/form` · `/v1/forget?member=` ·
//!   `/v1/cluster?name=&value=` · `/v1/keys/add` (body: a secret file) · `/v1/keys/use?id=` ·
//!   `/v1/keys/remove?id=`, and `GET /v1/keys`: on the socket only
//!
//! A fault is answered with a status code and `{"error": …}`. Keys in a query are percent-encoded
//! bytes; in an answer they are text, what is not UTF-8 replaced.

mod actions;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;

use crate::admin::stats::Stats;
use crate::admin::status::{Refusal, Role, SlotFilter, Slots, sd_targets};
use crate::admin::{Source, exposition};
use crate::limits;
use crate::metrics::ProcessMetrics;
use crate::types::units::parse_span;
use crate::types::{Db, SLOTS};

/// What the handlers share.
struct Shared {
    source: Arc<dyn Source>,
    process: ProcessMetrics,
}

type Node = State<Arc<Shared>>;

const PAGE: &str = include_str!("../status.html");
const PAGE_POLICY: &str = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; \
                           script-src 'unsafe-inline'; frame-ancestors 'none'";

/// The router; where it `acts`, also what changes something.
pub(super) fn router(source: Arc<dyn Source>, acts: bool) -> Router {
    let shared = Arc::new(Shared { source, process: ProcessMetrics::new() });
    let router = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/v1/status", get(async |State(node): Node| Json(node.source.status())))
        .route("/v1/members", get(async |State(node): Node| Json(node.source.members())))
        .route("/v1/ring", get(async |State(node): Node| Json(node.source.ring())))
        .route("/v1/ring/locate", get(locate))
        .route("/v1/explain", get(explain))
        .route("/v1/peers", get(async |State(node): Node| Json(node.source.peers())))
        .route("/v1/slots", get(slots))
        .route("/v1/stats", get(stats))
        .route("/v1/sd", get(sd))
        .route("/v1/cluster", get(async |State(node): Node| Json(node.source.facts())));
    let router = actions::ACTIONS.iter().fold(router, |router, (path, action)| {
        let refused = || post(async || refusal(StatusCode::FORBIDDEN, ACTIONS_REFUSED));
        router.route(path, if acts { action() } else { refused() })
    });
    let router = if acts { router.merge(actions::private()) } else { router };
    router
        .fallback(async || refusal(StatusCode::NOT_FOUND, "no such path"))
        .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_MAX))
        .with_state(shared)
}

const ACTIONS_REFUSED: &str = "actions are taken on the admin socket only";

fn refusal(code: StatusCode, why: impl Into<String>) -> Response {
    (code, Json(Refusal { error: why.into() })).into_response()
}

async fn page() -> impl IntoResponse {
    let headers: [(HeaderName, &str); 2] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
    ];
    (headers, PAGE)
}

async fn metrics(State(node): Node) -> impl IntoResponse {
    let text = exposition(node.source.as_ref(), &node.process);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn readyz(State(node): Node) -> Response {
    match node.source.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reasons) => {
            let text = reasons.into_iter().map(|reason| reason + "\n").collect::<String>();
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn stats(State(node): Node) -> Json<Stats> {
    Json(Stats::from_metrics(&node.source.metrics()))
}

async fn sd(State(node): Node) -> impl IntoResponse {
    Json(sd_targets(&node.source.status().cluster, &node.source.members()))
}

async fn locate(State(node): Node, RawQuery(query): RawQuery) -> Response {
    match Query::of(query).key() {
        Ok(key) => Json(node.source.locate(&key)).into_response(),
        Err(why) => refusal(StatusCode::BAD_REQUEST, why),
    }
}

async fn explain(State(node): Node, RawQuery(query): RawQuery) -> Response {
    let query = Query::of(query);
    let asked = query.key().and_then(|key| Ok((query.db()?, key)));
    match asked {
        Ok((db, key)) => Json(node.source.explain(db, Bytes::from(key)).await).into_response(),
        Err(why) => refusal(StatusCode::BAD_REQUEST, why),
    }
}

async fn slots(State(node): Node, RawQuery(query): RawQuery) -> Response {
    match Query::of(query).slots() {
        Ok(filter) => Json(Slots { slots: node.source.slots(filter) }).into_response(),
        Err(why) => refusal(StatusCode::BAD_REQUEST, why),
    }
}

/// The parameters of a request, decoded to bytes.
struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    fn of(query: Option<String>) -> Self {
        let query = query.unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (percent_decoded(name), percent_decoded(value)))
                .collect(),
        )
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(given, _)| given == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    /// A parameter that must be there, as text.
    fn text(&self, name: &str) -> Result<String, String> {
        let bytes = self.bytes(name).ok_or_else(|| format!("the parameter {name} is missing"))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("{name} is not text"))
    }

    fn key(&self) -> Result<Vec<u8>, String> {
        self.bytes("key")
            .map(<[u8]>::to_vec)
            .ok_or_else(|| "the parameter key is missing".to_owned())
    }

    fn number(&self, name: &str, default: u16) -> Result<u16, String> {
        let Some(text) = self.bytes(name) else { return Ok(default) };
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| format!("{name} is not a number"))
    }

    fn key_id(&self) -> Result<u8, String> {
        let id = self.text("id")?;
        id.parse().map_err(|_| format!("the id of a key is 0 to 255, not {id:?}"))
    }

    fn db(&self) -> Result<Db, String> {
        let number = self.number("db", 0)?;
        let db = u8::try_from(number).ok().and_then(Db::new);
        db.ok_or_else(|| format!("db is 0 to {}", Db::COUNT - 1))
    }

    fn slots(&self) -> Result<SlotFilter, String> {
        let role = match self.bytes("role") {
            None | Some(b"") => None,
            Some(b"owner") => Some(Role::Owner),
            Some(b"replica") => Some(Role::Replica),
            Some(_) => return Err("role is owner or replica".to_owned()),
        };
        let filter =
            SlotFilter { from: self.number("from", 0)?, to: self.number("to", SLOTS - 1)?, role };
        if filter.from > filter.to || filter.to >= SLOTS {
            return Err(format!("slots are 0 to {}, from the lower to the higher", SLOTS - 1));
        }
        Ok(filter)
    }

    fn timeout(&self) -> Result<Option<Duration>, String> {
        let Some(text) = self.bytes("timeout") else { return Ok(None) };
        let text = String::from_utf8_lossy(text);
        parse_span(&text).map(Some).map_err(|error| error.to_string())
    }
}

/// `%41` and `+` decoded; a broken escape stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = after.first_chunk::<2>().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match (first, escape) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => {
                decoded.push(b' ');
                rest = after;
            }
            (byte, _) => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}

#[cfg(test)]
pub(super) mod tests;
