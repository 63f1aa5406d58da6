//! `chickadee dev`: a throwaway cluster on loopback, one process per node.
//!
//! The first node forms the cluster, the others join it. Nodes end with this process however it
//! ends: they are killed in order, or notice that their stdin closed. Their folder goes with them.

use std::future::poll_fn;
use std::io;
use std::process::ExitStatus;
use std::task::Poll;
use std::time::Duration;

use crate::admin::status::Status;
use crate::cli::args::DevArgs;
use crate::cli::dev_nodes::{DevNode, Folder, Plan};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, Page};
use crate::cli::serve::one_signal;
use crate::clock::within;

/// How long the cluster may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// How often nodes are asked whether they are.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Runs the cluster until a signal ends it, or its last node was ended.
pub(super) async fn dev(args: DevArgs, output: Output) -> Result<(), Failure> {
    let folder = Folder::new()?;
    let plan =
        Plan { folder: &folder, nodes: args.nodes, base_port: args.base_port, set: &args.set };
    let mut nodes = Vec::new();
    let done = tokio::select! {
        biased;
        signal = one_signal() => signal.map(|_| ()),
        done = run(&plan, &mut nodes, output) => done,
    };
    for node in nodes {
        node.kill().await;
    }
    done
}

async fn run(plan: &Plan<'_>, nodes: &mut Vec<DevNode>, output: Output) -> Result<(), Failure> {
    let ready = within(READY_WITHIN, async {
        nodes.push(plan.start(0, None)?);
        let first = until(nodes, 0, |_| true).await?;
        let seed = first.addresses.peer.to_string();
        for index in 1..plan.nodes {
            nodes.push(plan.start(index, Some(&seed))?);
        }
        let mut ready = Vec::new();
        for index in 0..nodes.len() {
            ready.push(until(nodes, index, |status| status.ready).await?);
        }
        Ok(ready)
    })
    .await;
    let late = || Failure::TimedOut(format!("the cluster was not ready within {READY_WITHIN:?}"));
    let ready = ready.ok_or_else(late)??;
    output.page(&page(nodes, &ready))?;
    output::note("dev: the cluster is ready; Ctrl-C ends it and leaves nothing behind");
    while !nodes.is_empty() {
        let (index, status) = any_ended(nodes).await;
        let node = nodes.swap_remove(index);
        output::note(&format!("dev: {} was ended from outside ({})", node.name, ending(&status)));
    }
    Err(Failure::Failed("every node was ended".to_owned()))
}

/// The status of node `index` once it is as wanted; a node that ends meanwhile is the failure.
async fn until(
    nodes: &mut [DevNode],
    index: usize,
    wanted: impl Fn(&Status) -> bool,
) -> Result<Status, Failure> {
    loop {
        let asked = match nodes.get(index) {
            Some(node) => node.ask.get::<Status>("/v1/status").await,
            None => return Err(Failure::Failed("BUG: no such node".to_owned())),
        };
        if let Ok(status) = asked
            && wanted(&status)
        {
            return Ok(status);
        }
        if let Some((index, status)) = within(ASK_EVERY, any_ended(nodes)).await {
            let name = nodes.get(index).map_or("a node", |node| node.name.as_str());
            let how = ending(&status);
            return Err(Failure::Failed(format!("{name} did not start ({how}); its log says why")));
        }
    }
}

/// The first node whose process ends.
async fn any_ended(nodes: &mut [DevNode]) -> (usize, io::Result<ExitStatus>) {
    let mut endings: Vec<_> = nodes.iter_mut().map(|node| Box::pin(node.ended())).collect();
    poll_fn(|context| {
        for (index, ending) in endings.iter_mut().enumerate() {
            if let Poll::Ready(status) = ending.as_mut().poll(context) {
                return Poll::Ready((index, status));
            }
        }
        Poll::Pending
    })
    .await
}

fn ending(status: &io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

fn page(nodes: &[DevNode], ready: &[Status]) -> Page {
    let page = ready.first().and_then(|status| status.addresses.admin);
    let page = page.map(|address| format!("http://{address}/")).unwrap_or_default();
    let both = || nodes.iter().zip(ready);
    let json = serde_json::json!({
        "nodes": both()
            .map(|(node, status)| {
                serde_json::json!({
                    "name": node.name,
                    "pid": node.pid(),
                    "socket": node.ask.to_string(),
                    "addresses": status.addresses,
                })
            })
            .collect::<Vec<_>>(),
        "status_page": page,
    });
    let row = |(node, status): (&DevNode, &Status)| {
        let addresses = &status.addresses;
        vec![
            node.name.clone(),
            node.pid().map(|pid| pid.to_string()).unwrap_or_default(),
            addresses.client.to_string(),
            addresses.cluster.to_string(),
            addresses.peer.to_string(),
            addresses.admin.map(|address| address.to_string()).unwrap_or_default(),
        ]
    };
    let last = vec!["status page".to_owned(), String::new(), page];
    let rows = both().map(row).chain(std::iter::once(last)).collect();
    let head = &["NODE", "PID", "CLIENTS", "CLUSTER CLIENTS", "PEERS", "ADMIN"];
    Page { json, head, rows }
}
