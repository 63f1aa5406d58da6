//! Users and passwords of real nodes: who gets in, what they may do, and what a reload changes.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up has failed")]
#![expect(clippy::float_cmp, reason = "these metrics are whole numbers")]

mod support;

use std::fs;
use std::path::Path;

use support::resp::{Client, Reply, bulk, ok};
use support::{Cluster, Node, wait_for};

fn setting(key: &str, path: &Path) -> String {
    format!("client.{key}={}", path.display())
}

fn error(reply: &Reply) -> String {
    assert!(reply.is_error(), "{reply:?}");
    reply.text().unwrap()
}

/// Tells a node to read its settings again and waits until it has.
fn reload(node: &Node) {
    let read = || node.log().matches("settings were read again").count();
    let before = read();
    node.signal("HUP");
    wait_for("the settings are read again", || (read() > before).then_some(()));
}

/// Waits until the node has closed a connection.
fn wait_closed(client: &Client) {
    wait_for("the connection is closed", || client.is_closed().unwrap().then_some(()));
}

#[test]
fn each_line_of_the_password_file_lets_in_and_a_reload_takes_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    fs::write(&file, "old\n").unwrap();
    let cluster = Cluster::started(1, &[&setting("password_file", &file)]);
    let node = &cluster.nodes[0];
    let log_in = |password: &str| cluster.client(0).run(&["AUTH", password]);
    assert_eq!(log_in("old"), ok());
    assert!(error(&log_in("new")).starts_with("WRONGPASS"));

    fs::write(&file, "new\n\nold\n").unwrap();
    reload(node);
    assert_eq!((log_in("old"), log_in("new")), (ok(), ok()));

    let mut before = cluster.client(0);
    assert_eq!(before.run(&["AUTH", "old"]), ok());
    fs::write(&file, "new\n").unwrap();
    reload(node);
    assert!(error(&log_in("old")).starts_with("WRONGPASS"));
    assert_eq!(log_in("new"), ok());
    assert_eq!(before.run(&["SET", "a", "b"]), ok(), "who is in stays in");

    // A file without a password, and one with too many, change nothing.
    for (text, why) in [("\n\n", "holds no password"), (&*"x\n".repeat(9), "more than 8 passwords")]
    {
        fs::write(&file, text).unwrap();
        node.signal("HUP");
        wait_for(why, || node.log().contains(why).then_some(()));
        assert_eq!(log_in("new"), ok());
    }
}

#[test]
fn users_may_do_what_their_file_says_and_a_reload_counts_at_the_next_command() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    let (app, ops) = ("user app on >a ~app:* +@read +@write", "user ops on >o ~* +@all");
    fs::write(&file, format!("# who is who\nuser default off\n{app}\n{ops}\n")).unwrap();
    let cluster = Cluster::started(2, &[&setting("acl_file", &file)]);
    let node = &cluster.nodes[0];
    let log_in = |name: &str, password: &str| {
        let mut client = cluster.client(0);
        assert_eq!(client.run(&["AUTH", name, password]), ok());
        client
    };
    assert!(error(&cluster.client(0).run(&["GET", "app:1"])).starts_with("NOAUTH"));
    assert!(error(&cluster.client(0).run(&["AUTH", "app", "o"])).starts_with("WRONGPASS"));
    let (mut app_client, mut ops_client) = (log_in("app", "a"), log_in("ops", "o"));
    // Some of these keys are another node's.
    for number in 0..50 {
        assert_eq!(app_client.run(&["SET", &format!("app:{number}"), "x"]), ok());
    }
    let denied = error(&app_client.run(&["SET", "other", "x"]));
    assert_eq!(
        denied,
        "NOPERM this user has no permissions to access one of the keys used as arguments"
    );
    let denied = error(&app_client.run(&["CONFIG", "GET", "maxclients"]));
    assert_eq!(denied, "NOPERM this user has no permissions to run the 'config|get' command");
    assert_eq!(node.metric("chickadee_command_errors_total", "reason=\"NOPERM\""), 2.0);
    assert_eq!(ops_client.run(&["ACL", "WHOAMI"]), bulk("ops"));
    let listed = ops_client.run(&["CLIENT", "LIST"]).text().unwrap();
    assert!(listed.contains("user=app") && listed.contains("user=ops"), "{listed}");

    // Fewer rights count at once, on the connection that is there.
    fs::write(&file, format!("user default off\nuser app on >a ~app:* +@read\n{ops}\n")).unwrap();
    reload(node);
    assert!(error(&app_client.run(&["SET", "app:1", "y"])).contains("'set'"));
    assert_eq!(app_client.run(&["GET", "app:1"]), bulk("x"));
    // A wrong file changes nothing, whichever way it is read.
    fs::write(&file, "user default off\nuser app on >a +@raed\n").unwrap();
    node.signal("HUP");
    let line = format!("{}:2: user \"app\": rule 3, \"+@raed\", names a category", file.display());
    wait_for("the line is named", || node.log().contains(&line).then_some(()));
    assert!(error(&ops_client.run(&["ACL", "LOAD"])).contains(&line));
    assert_eq!(app_client.run(&["GET", "app:1"]), bulk("x"));
    // ACL LOAD is a reload of users alone, from the very next command on.
    fs::write(&file, format!("user default off\n{ops} -flushall\n")).unwrap();
    ops_client.send(&["ACL", "LOAD"]).unwrap();
    ops_client.send(&["FLUSHALL"]).unwrap();
    assert_eq!(ops_client.receive().unwrap(), ok());
    assert!(error(&ops_client.receive().unwrap()).contains("'flushall'"));
    // Who is a user no more is disconnected.
    wait_closed(&app_client);
    assert!(error(&cluster.client(0).run(&["AUTH", "app", "a"])).starts_with("WRONGPASS"));
    for words in [vec!["ACL", "SETUSER", "x", "on"], vec!["ACL", "SAVE"]] {
        assert!(error(&ops_client.run(&words)).contains("client.acl_file"), "{words:?}");
    }
}

#[test]
fn the_command_line_logs_in_as_the_user_of_its_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    fs::write(&file, "user default on >d ~* +@all\nuser app on >a ~app:* +@all\n").unwrap();
    let cluster = Cluster::started(1, &[&setting("acl_file", &file)]);
    let set = |key: &str, user: Option<&str>, password: &str| {
        let mut command = support::program();
        command.args(["set", key, "x", "--socket"]).arg(cluster.nodes[0].socket());
        command.env("CHICKADEE_PASSWORD", password);
        command.envs(user.map(|user| ("CHICKADEE_USER", user)));
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(set("other", None, "d").0);
    assert!(set("app:1", Some("app"), "a").0);
    let (done, said) = set("other", Some("app"), "a");
    assert!(!done && said.contains("NOPERM"), "{said}");
    assert!(set("app:1", Some("app"), "d").1.contains("WRONGPASS"));
}

#[test]
fn a_file_that_lets_strangers_in_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users.acl");
    fs::write(&file, "user ops on >o ~* +@all\n").unwrap();
    let mut command = support::program();
    command.args(["serve", "--set", "client.listen=0.0.0.0:0"]);
    command.args(["--set", "gossip.listen=127.0.0.1:0", "--set", "peer.listen=127.0.0.1:0"]);
    command.args(["--set", "admin.listen=127.0.0.1:0", "--set", &setting("acl_file", &file)]);
    command.args(["--set", &format!("node.data_dir={}", folder.path().join("data").display())]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("the user `default` needs no password"), "{said}");
}

#[test]
fn who_is_let_in_and_who_is_not_stands_in_the_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    fs::write(&file, "right-secret\n").unwrap();
    let level = "log.level=info,chickadee::audit=debug";
    let cluster = Cluster::started(1, &[&setting("password_file", &file), level]);
    let node = &cluster.nodes[0];
    let lines = |text: &str| {
        let of_audit = |line: &&str| line.contains("chickadee::audit") && line.contains(text);
        node.log().lines().filter(of_audit).map(str::to_owned).collect::<Vec<_>>()
    };
    let log_in = |user: &str, password: &str| cluster.client(0).run(&["AUTH", user, password]);
    assert!(error(&log_in("right-secret", "default")).starts_with("WRONGPASS"));
    assert!(error(&log_in("default", "wrong-secret")).starts_with("WRONGPASS"));
    assert_eq!(log_in("default", "right-secret"), ok());
    wait_for("the login is logged", || (!lines("client logged in").is_empty()).then_some(()));
    let refused = lines("login refused");
    let [line] = &*refused else { panic!("one line for two: {refused:?}") };
    assert!(line.contains("(unknown)"), "{line}");
    assert!(lines("client logged in")[0].contains("default"));
    let log = node.log();
    assert!(!log.contains("wrong-secret") && !log.contains("right-secret"));
}
