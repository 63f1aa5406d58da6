//! The paths against a made-up node.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::admin::Actions;
use crate::admin::status::{
    Addresses, Explained, Facts, KeyChanged, KeyRow, Left, Located, Member, MemberCounts,
    NodeStatus, Peer, Ring, RingStatus, SlotRow, Stamp, Status, StoreStatus,
};
use crate::metrics::Metrics;
use crate::tasks::BoxFuture;
use crate::types::{MemberState, Phase, WallMillis};

/// A node that answers the same whatever happens, but for being ready or not.
#[derive(Default)]
pub(in crate::admin) struct FakeNode {
    pub(in crate::admin) unready: AtomicBool,
}

pub(in crate::admin) fn peer(name: &str) -> Peer {
    Peer {
        id: "00".to_owned(),
        name: name.to_owned(),
        state: MemberState::Alive,
        address: None,
        zone: Some("z".to_owned()),
        version: Some("0.1.0".to_owned()),
        connected: true,
        rtt_seconds: Some(0.0004),
        queue_bytes: 12,
        dirty_slots: 2,
        last_seen: Some(Stamp(WallMillis(1_500))),
        clock_offset_seconds: Some(-0.5),
        last_error: None,
    }
}

fn address(port: u16) -> std::net::SocketAddr {
    ([127, 0, 0, 1], port).into()
}

impl Source for FakeNode {
    fn status(&self) -> Status {
        Status {
            node: NodeStatus {
                id: "01".into(),
                name: "n1".into(),
                version: "0.1.0".into(),
                zone: None,
                protocol: 1,
            },
            cluster: "c".into(),
            ready: true,
            phase: Phase::Active,
            fenced: None,
            members: MemberCounts { alive: 2, ..MemberCounts::default() },
            ring: RingStatus { placement_id: "00ff".into(), ..RingStatus::default() },
            store: StoreStatus::default(),
            uptime_seconds: 1.5,
            addresses: Addresses {
                client: address(1),
                cluster: address(2),
                client_tls: None,
                cluster_tls: None,
                gossip: address(3),
                peer: address(4),
                admin: Some(address(5)),
            },
        }
    }

    fn members(&self) -> Vec<Member> {
        let member = |name: &str, state, admin| Member {
            id: "01".into(),
            name: name.into(),
            state,
            phase: Phase::Active,
            since: Stamp(WallMillis(1)),
            gossip: address(3),
            peer: None,
            client: None,
            cluster: None,
            admin,
            zone: Some("z".into()),
            weight: 1,
            generation: 7,
            version: None,
            rtt_seconds: None,
            is_self: name == "n1",
        };
        vec![
            member("n1", MemberState::Alive, Some(address(5))),
            member("n2", MemberState::Dead, Some(address(6))),
            member("n3", MemberState::Left, Some(address(7))),
            member("n4", MemberState::Alive, None),
        ]
    }

    fn peers(&self) -> Vec<Peer> {
        vec![peer("n2")]
    }

    fn ring(&self) -> Ring {
        Ring { placement_id: "00ff".into(), replicas: 2, nodes: Vec::new() }
    }

    fn locate(&self, key: &[u8]) -> Located {
        let key = format!("{key:02x?}");
        Located { key, slot: 0, replicas: Vec::new() }
    }

    fn explain(&self, db: Db, key: Bytes) -> BoxFuture<'_, Explained> {
        let key = format!("{} {key:?}", db.get());
        Box::pin(async { Explained { key, slot: 0, copies: Vec::new() } })
    }

    fn slots(&self, filter: SlotFilter) -> Vec<SlotRow> {
        let row = |slot| SlotRow {
            slot,
            role: Some(Role::Owner),
            acting: true,
            complete: true,
            keys: 0,
            digest: "00".into(),
            as_of: Some(Stamp(WallMillis(1))),
        };
        vec![row(filter.from), row(filter.to)]
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        if self.unready.load(Ordering::Relaxed) {
            return Err(vec!["joining".into(), "3 slots incomplete".into()]);
        }
        Ok(())
    }

    fn certificate_ends(&self) -> Vec<(&'static str, f64)> {
        vec![("client", 1.0)]
    }

    fn metrics(&self) -> String {
        Metrics::new().1.render()
    }

    fn facts(&self) -> Facts {
        made_up_facts()
    }
}

fn made_up_facts() -> Facts {
    Facts {
        name: "c".into(),
        replicas: 2,
        virtual_nodes: 256,
        ring_grace_seconds: 30.0,
        tombstone_grace_seconds: 3600.0,
        revision: 1,
    }
}

impl Actions for FakeNode {
    fn leave(&self, timeout: Option<Duration>) -> BoxFuture<'_, Result<Left, String>> {
        let slots_remaining = timeout.map_or(0, |t| u32::try_from(t.as_secs()).unwrap());
        Box::pin(async move { Ok(Left { slots_remaining }) })
    }

    fn form(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Err("already a member".to_owned()) })
    }

    fn forget(&self, member: String) -> BoxFuture<'_, Result<(), String>> {
        let known = member == "n 2";
        Box::pin(async move { if known { Ok(()) } else { Err("no such member".to_owned()) } })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<KeyRow>, String>> {
        let key = |id, primary| KeyRow { id, primary, fingerprint: "00ff".into() };
        Box::pin(async move { Ok(vec![key(0, false), key(1, true)]) })
    }

    fn add_key(&self, contents: Bytes) -> BoxFuture<'_, Result<KeyChanged, String>> {
        let id = u8::try_from(contents.len()).unwrap();
        Box::pin(async move { Ok(KeyChanged { id, late: vec!["n3".into()] }) })
    }

    fn use_key(&self, id: u8) -> BoxFuture<'_, Result<KeyChanged, String>> {
        Box::pin(async move { Ok(KeyChanged { id, late: Vec::new() }) })
    }

    fn remove_key(&self, id: u8) -> BoxFuture<'_, Result<KeyChanged, String>> {
        Box::pin(async move { Err(format!("key {id} seals")) })
    }

    fn set_fact(&self, name: String, value: String) -> BoxFuture<'_, Result<Facts, String>> {
        let replicas = value.parse().map_err(|_| format!("{name}: not a number"));
        Box::pin(async move { Ok(Facts { replicas: replicas?, ..made_up_facts() }) })
    }
}

async fn ask(node: FakeNode, actions: bool, method: Method, path: &str) -> (u16, String) {
    let service = TowerToHyperService::new(router(Arc::new(node), actions));
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let response = service.call(request).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

async fn read(path: &str) -> (u16, String) {
    ask(FakeNode::default(), false, Method::GET, path).await
}

#[tokio::test]
async fn readiness_gives_its_reasons() {
    assert_eq!(read("/readyz").await, (200, "ready\n".to_owned()));
    let node = FakeNode { unready: true.into() };
    let answer = ask(node, false, Method::GET, "/readyz").await;
    assert_eq!(answer, (503, "joining\n3 slots incomplete\n".to_owned()));
    assert_eq!(read("/healthz").await.0, 200);
}

#[tokio::test]
async fn answers_have_the_agreed_fields() {
    let (code, body) = read("/v1/status").await;
    assert_eq!(code, 200);
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["node"]["name"], "n1");
    assert_eq!(status["phase"], "active");
    assert!(status["fenced"].is_null());
    assert_eq!(status["addresses"]["client"], "127.0.0.1:1");
    let members: serde_json::Value = serde_json::from_str(&read("/v1/members").await.1).unwrap();
    assert_eq!(members[0]["self"], true);
    assert_eq!(members[1]["state"], "dead");
    let targets: serde_json::Value = serde_json::from_str(&read("/v1/sd").await.1).unwrap();
    assert_eq!(targets.as_array().unwrap().len(), 2);
    assert_eq!(targets[0]["labels"]["cluster"], "c");
    let slots: serde_json::Value =
        serde_json::from_str(&read("/v1/slots?from=5&to=9&role=owner").await.1).unwrap();
    assert_eq!(slots["slots"][1]["slot"], 9);
}

#[tokio::test]
async fn a_key_is_bytes() {
    let (_, body) = read("/v1/ring/locate?key=a%00%fF%2+b").await;
    let located: Located = serde_json::from_str(&body).unwrap();
    assert_eq!(located.key, "[61, 00, ff, 25, 32, 20, 62]");
    let (_, body) = read("/v1/explain?db=3&key=x").await;
    assert!(body.contains("3 b"), "{body}");
}

#[tokio::test]
async fn wrong_questions_are_explained() {
    for (path, code) in [
        ("/v1/ring/locate", 400),
        ("/v1/explain?key=a&db=16", 400),
        ("/v1/slots?from=9&to=1", 400),
        ("/v1/slots?to=16384", 400),
        ("/v1/slots?role=king", 400),
        ("/v1/nothing", 404),
    ] {
        let (got, body) = read(path).await;
        assert_eq!(got, code, "{path}");
        assert!(serde_json::from_str::<Refusal>(&body).is_ok(), "{path}: {body}");
    }
}

#[tokio::test]
async fn actions_are_for_the_socket() {
    let act = |actions, path| ask(FakeNode::default(), actions, Method::POST, path);
    assert_eq!(act(false, "/v1/leave").await.0, 403);
    assert_eq!(act(false, "/v1/form").await.0, 403);
    let (code, body) = act(true, "/v1/leave?timeout=5s").await;
    assert_eq!((code, body.as_str()), (200, "{\"slots_remaining\":5}"));
    assert_eq!(act(true, "/v1/leave?timeout=x").await.0, 400);
    assert_eq!(act(true, "/v1/form").await, (409, "{\"error\":\"already a member\"}".to_owned()));
    assert_eq!(ask(FakeNode::default(), true, Method::GET, "/v1/leave").await.0, 405);
    for (path, _) in actions::ACTIONS {
        assert_eq!(act(false, path).await.0, 403, "{path}");
    }
    assert_eq!(act(true, "/v1/forget").await.0, 400);
    assert_eq!(act(true, "/v1/forget?member=n%202").await.0, 200);
    assert_eq!(act(true, "/v1/forget?member=n3").await.0, 409);
    assert_eq!(act(true, "/v1/cluster?name=replicas").await.0, 400);
    assert_eq!(act(true, "/v1/cluster?name=replicas&value=x").await.0, 409);
    let (_, body) = act(true, "/v1/cluster?name=replicas&value=3").await;
    assert!(body.contains("\"replicas\":3"), "{body}");
    assert_eq!(read("/v1/keys").await.0, 404);
    let (_, body) = ask(FakeNode::default(), true, Method::GET, "/v1/keys").await;
    assert!(body.contains("\"id\":1,\"primary\":true"), "{body}");
    assert_eq!(act(true, "/v1/keys/use?id=3").await.1, "{\"id\":3,\"late\":[]}");
    assert_eq!(act(true, "/v1/keys/use?id=256").await.0, 400);
    assert_eq!(act(true, "/v1/keys/remove?id=3").await.0, 409);
    assert!(read("/v1/cluster").await.1.contains("\"ring_grace_seconds\":30.0"));
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let (code, page) = read("/").await;
    assert_eq!(code, 200);
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("innerHTML"));
}
