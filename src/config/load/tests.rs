//! Tests of loading: precedence, messages, relations.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::config::describe;

fn machine() -> Machine {
    Machine {
        host_name: "host-1".to_owned(),
        total_memory: ByteSize(1 << 30),
        data_dir: PathBuf::from("/data"),
        runtime_dir: None,
        credentials: BTreeMap::new(),
    }
}

fn load_all(file: &str, variables: &[(&str, &str)], flags: &[Flag]) -> Result<Loaded, String> {
    load_on(&machine(), file, variables, flags)
}

fn load_on(
    machine: &Machine,
    file: &str,
    variables: &[(&str, &str)],
    flags: &[Flag],
) -> Result<Loaded, String> {
    let environment: BTreeMap<String, String> =
        variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load(&Sources {
        file: Some(FileText { path: "a.toml", text: file }),
        environment: &environment,
        flags,
        form: false,
        machine,
    })
    .map_err(|error| error.to_string())
}

fn file(text: &str) -> Result<Loaded, String> {
    load_all(text, &[], &[])
}

fn shown_of(loaded: &Loaded) -> String {
    describe::Shown { loaded, origins: false }.to_string()
}

fn flag(key: &str, value: &str) -> Flag {
    Flag { key: key.to_owned(), values: vec![value.to_owned()], written: format!("--set {key}") }
}

#[test]
fn the_defaults_are_valid_and_come_back_as_they_are() {
    let loaded = file("").unwrap();
    assert_eq!(loaded.config.node.name.as_str(), "host-1");
    assert_eq!(loaded.config.admin.socket, PathBuf::from("/data/admin.sock"));
    assert_eq!(loaded.config.memory.limit, ByteSize((1 << 30) * 60 / 100));
    for row in SETTINGS.iter().filter(|row| !row.default.contains('%')) {
        let shown = row.show(&loaded.config);
        assert!(row.default.is_empty() || shown == row.default, "{}: {shown}", row.key);
    }
    let shown = shown_of(&loaded);
    let again = file(&shown).unwrap();
    assert_eq!(shown_of(&again), shown);
}

#[test]
fn every_row_is_whole_and_its_names_are_its_own() {
    let mut names = BTreeSet::new();
    for row in SETTINGS {
        assert!(row.doc.ends_with('.') || row.doc.contains(", such as"), "{}", row.key);
        assert!(row.default.is_empty() != row.fallback.is_empty(), "{}", row.key);
        assert!(names.insert(row.variable()) && names.insert(row.long_flag()), "{}", row.key);
        assert!(row.flag.is_none_or(|flag| names.insert(flag.to_owned())), "{}", row.key);
        let told = |name| row.more.contains(&format!("the file `{name}` in `$CREDENTIALS_DIREC"));
        assert!(row.credential.is_none_or(told), "{}", row.key);
    }
}

#[test]
fn later_sources_win_and_are_remembered() {
    let text = "[cluster]\nreplicas = 3\nacks = \"all\"\n[node]\nweight = \"2\"\n";
    let variables = [("CHICKADEE_CLUSTER_ACKS", "one"), ("OTHER", "x")];
    let loaded = load_all(text, &variables, &[flag("cluster.replicas", "4")]).unwrap();
    assert_eq!(loaded.config.cluster.replicas, 4);
    assert_eq!(loaded.config.cluster.acks, Acks::One);
    assert_eq!(loaded.config.node.weight.get(), 2);
    assert_eq!(loaded.origin("cluster.replicas").to_string(), "flag --set cluster.replicas");
    assert_eq!(
        loaded.origin("cluster.acks").to_string(),
        "environment variable CHICKADEE_CLUSTER_ACKS"
    );
    assert_eq!(loaded.origin("node.weight").to_string(), "a.toml:5:10");
    assert_eq!(loaded.origin("node.zone"), Origin::Default);
}

#[test]
fn listeners_and_seeds_take_one_or_a_list() {
    let one = file("client.listen = \"127.0.0.1:1\"").unwrap();
    assert_eq!(one.config.client.listen.len(), 1);
    let two = file("client.listen = [\"127.0.0.1:1\", \"[::1]:1\"]").unwrap();
    assert_eq!(two.config.client.listen.len(), 2);
    let seeds = load_all("", &[("CHICKADEE_CLUSTER_JOIN", "a,b:9")], &[]).unwrap();
    assert_eq!(seeds.config.cluster.join, ["a:7401", "b:9"]);
    assert!(file("admin.listen = []").unwrap().config.admin.listen.is_empty());
}

#[test]
fn a_wrong_name_is_placed_and_the_nearest_is_named() {
    let wrong = |text| file(text).unwrap_err();
    let message = wrong("[memory]\nlimt = 3\n");
    assert_eq!(
        message,
        "a.toml:2:1: unknown setting \"memory.limt\"; did you mean \"memory.limit\"?"
    );
    assert_eq!(
        wrong("[memroy]\n"),
        "a.toml:1:2: unknown setting \"memroy\"; did you mean \"memory\"?"
    );
    assert!(wrong("replicas = 3").contains("did you mean \"cluster.replicas\"?"));
    assert!(wrong("[zzz]\n").ends_with("unknown setting \"zzz\""));
    let message = load_all("", &[("CHICKADEE_NODE_NAMES", "x")], &[]).unwrap_err();
    assert!(message.contains("did you mean \"CHICKADEE_NODE_NAME\"?"), "{message}");
    let message = load_all("", &[], &[flag("gossip.lisen", "x")]).unwrap_err();
    assert!(message.contains("did you mean \"gossip.listen\"?"), "{message}");
    assert!(load_all("", &[(PASSWORD_VARIABLE, "x")], &[]).is_ok());
}

#[test]
fn a_wrong_value_is_placed_and_explained() {
    for (text, part) in [
        ("[cluster]\nreplicas = 9", "a.toml:2:12: cluster.replicas: 9 is out of range: 1 to 8"),
        ("[cluster]\nacks = \"most\"", "\"most\" is none of one, quorum, all"),
        ("[client]\nlisten = \"6379\"", "not an address and port: \"6379\""),
        ("[client]\nop_timeout = \"2 parsecs\"", "not a span of time"),
        ("[node]\nname = \"a b\"", "letters, digits"),
        ("[node]\nweight = [1, 2]", "takes one value, not a list"),
        ("[node]\nweight = { a = 1 }", "takes a text, a number"),
        ("[cluster]\nreplicas = \"\"", "must not be empty"),
        ("[log]\nlevel = \"a=b=c\"", "log.level: not a filter"),
        ("[cluster\n", "a.toml:1:"),
    ] {
        let message = file(text).unwrap_err();
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn a_listener_beyond_loopback_needs_a_secret_or_password() {
    let message = file("gossip.listen = \"0.0.0.0:7400\"").unwrap_err();
    assert!(message.contains("chickadee keygen --out FILE"), "{message}");
    assert!(message.starts_with("a.toml:1:17: gossip.listen = 0.0.0.0:7400"), "{message}");
    let secret = "security.secret_file = \"s\"\n";
    assert!(file(&format!("{secret}gossip.listen = \"10.0.0.1:7400\"")).is_ok());
    assert!(file("peer.listen = \"[::]:7401\"").is_err());
    assert!(file("client.listen = \"0.0.0.0:1\"").unwrap_err().contains("password_file"));
    assert!(file("client.cluster_listen = \"0.0.0.0:1\"").is_err());
    assert!(file("client.listen = \"0.0.0.0:1\"\nclient.password_file = \"p\"").is_ok());
    assert!(file("client.listen = \"0.0.0.0:1\"\nclient.danger_allow_anonymous = true").is_ok());
    assert!(file("client.listen = \"[::ffff:127.0.0.1]:1\"").is_ok());
}

#[test]
fn a_credential_stands_in_where_nothing_is_set() {
    let mut machine = machine();
    machine.credentials.insert("secret", PathBuf::from("/run/c/secret"));
    let open = "gossip.listen = \"10.0.0.1:7400\"\n";
    let loaded = load_on(&machine, open, &[], &[]).unwrap();
    assert_eq!(loaded.config.security.secret_file, Some(PathBuf::from("/run/c/secret")));
    assert_eq!(loaded.origin("security.secret_file").to_string(), "credential secret");
    assert_eq!(loaded.config.client.password_file, None);
    machine.credentials.insert("password", PathBuf::from("/run/c/password"));
    let loaded = load_on(&machine, "client.listen = \"0.0.0.0:1\"", &[], &[]).unwrap();
    assert_eq!(loaded.config.client.password_file, Some(PathBuf::from("/run/c/password")));
    let set = load_on(&machine, "security.secret_file = \"s\"", &[], &[]).unwrap();
    assert_eq!(set.config.security.secret_file, Some(PathBuf::from("s")));
    let set = load_on(&machine, "", &[], &[flag("client.password_file", "p")]).unwrap();
    assert_eq!(set.config.client.password_file, Some(PathBuf::from("p")));
    let none = load_on(&machine, "client.password_file = \"\"", &[], &[]).unwrap();
    assert_eq!(none.config.client.password_file, None, "set to none is set");
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for text in [
        "client.op_timeout = \"100ms\"",
        "client.output_buffer_limit = \"1MiB\"",
        "cluster.ring_grace = \"2h\"",
        "client.listen = []",
        "peer.listen = \"127.0.0.1:7400\"",
    ] {
        assert!(file(text).is_err(), "{text}");
    }
}

#[test]
fn a_second_reading_changes_what_can_change_if_it_goes_with_the_rest() {
    let before = file("[client]\nlisten = \"0.0.0.0:1\"\npassword_file = \"/p\"\n").unwrap().config;
    let again = |text: &str| before.reloaded(&file(text).unwrap());
    let both = "[client]\nlisten = \"0.0.0.0:1\"\npassword_file = \"/q\"\nmax_clients = 9\n\
                [node]\nweight = 2\n";
    let (config, reloaded) = again(both).unwrap();
    assert_eq!(reloaded.changed, ["client.password_file", "client.max_clients"]);
    assert_eq!(reloaded.waiting, ["node.weight"]);
    assert_eq!((config.client.max_clients, config.node.weight.get()), (9, 1));
    assert_eq!(config.client.password_file, Some(PathBuf::from("/q")));

    // Right as a file, but what counts at once does not go with what is still listened on.
    let open = again("[client]\nlisten = \"127.0.0.1:1\"\n").unwrap_err().to_string();
    assert!(open.contains("client.password_file"), "{open}");
    let narrow = "[client]\nlisten = \"0.0.0.0:1\"\npassword_file = \"/p\"\n\
                  output_buffer_limit = \"1MiB\"\nmax_value_size = \"1MiB\"\n";
    let narrow = again(narrow).unwrap_err().to_string();
    assert!(narrow.contains("client.max_value_size (64MiB)"), "{narrow}");
}

#[test]
fn the_example_is_a_valid_file_even_with_its_defaults_put_in() {
    assert!(file(&describe::Example.to_string()).is_ok());
    let live: String = describe::Example
        .to_string()
        .lines()
        .filter(|line| !line.contains("default:"))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let loaded = file(&live).unwrap();
    assert!(loaded.origins.len() > 20, "{live}");
}
