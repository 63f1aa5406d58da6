//! Tests of users: rules, files, rights.

use super::file::parse;
use super::*;
use crate::command::parse::resolve;

fn users(text: &str) -> Users {
    Users::of(parse(text).unwrap(), None)
}

fn may(user: &User, request: &str) -> Result<(), Denied> {
    let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
    user.check(resolve(&args).unwrap(), &args)
}

fn user(rules: &str) -> Arc<User> {
    Arc::clone(users(&format!("user u {rules}")).get("u").unwrap())
}

#[test]
fn who_is_made_by_no_rule_may_nothing() {
    let nobody = user("");
    assert_eq!(nobody.line(), "user u off resetchannels -@all");
    assert_eq!(may(&nobody, "get a"), Err(Denied::Command));
    assert!(users("user u >x ~* +@all").log_in(b"u", b"x").is_none(), "it is off");
    assert!(users("user u on ~* +@all").log_in(b"u", b"").is_none(), "it has no password");
}

#[test]
fn commands_are_allowed_by_name_category_and_subcommand_in_order() {
    let reader = user("on ~* +@read -keys +client|id +client -client|kill");
    for allowed in ["get a", "mget a b", "scan 0", "client id", "client list", "object encoding a"]
    {
        assert_eq!(may(&reader, allowed), Ok(()), "{allowed}");
    }
    for denied in ["set a b", "keys *", "client kill x", "flushall", "config get x", "ping"] {
        assert_eq!(may(&reader, denied), Err(Denied::Command), "{denied}");
    }
    let rules = "-@all +@read -keys +client -client|kill";
    assert_eq!(reader.line(), format!("user u on ~* resetchannels {rules}"));
    let most = user("ON nopass allkeys AllCommands -@dangerous +INFO");
    assert_eq!(may(&most, "info"), Ok(()));
    assert_eq!(may(&most, "flushall"), Err(Denied::Command));
    assert!(!most.is_free() && !user("+@all").is_free() && user("+@all ~*").is_free());
    assert!(user("~* +@all -get +get").is_free());
}

#[test]
fn keys_are_checked_each_by_what_happens_to_it() {
    let some = user("+@all ~own:* %R~shared:* %W~log:*");
    for allowed in [
        "set own:a 1",
        "get shared:a",
        "mget own:a shared:b",
        "set log:a 1",
        "exists log:a shared:b",
        "ping",
        "scan 0",
        "object encoding own:a",
    ] {
        assert_eq!(may(&some, allowed), Ok(()), "{allowed}");
    }
    for denied in [
        "get log:a",
        "set log:a 1 get",
        "set shared:a 1",
        "append shared:a 1",
        "mget own:a other",
        "mset own:a 1 shared:a 2",
        "del own:a shared:b",
        "exists other",
        "memory usage other",
    ] {
        assert_eq!(may(&some, denied), Err(Denied::Key), "{denied}");
    }
}

#[test]
fn any_password_of_a_user_lets_it_in_and_no_other() {
    let hash = Hash::of(b"three").to_hex();
    let users = users(&format!(
        "user a on >one >two #{hash} <two\nuser b on nopass\nuser c on >x resetpass\n"
    ));
    let in_as = |name: &str, password: &str| {
        users.log_in(name.as_bytes(), password.as_bytes()).map(|user| user.name().to_owned())
    };
    assert_eq!(in_as("a", "one").as_deref(), Some("a"));
    assert_eq!(in_as("a", "three").as_deref(), Some("a"));
    assert_eq!(in_as("b", "whatever").as_deref(), Some("b"));
    for (name, password) in [("a", "two"), ("a", ""), ("c", "x"), ("c", ""), ("d", "one")] {
        assert_eq!(in_as(name, password), None, "{name} {password}");
    }
    assert!(users.default_user().is_open() && users.default_user().is_free());
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_line_and_without_passwords() {
    let wrong = |text: &str| parse(text).unwrap_err();
    assert!(parse("# a remark\n\n  user a on\n").is_ok());
    let hash = "0".repeat(63);
    for (rules, part) in [
        ("+nope", "names a command that does not exist here"),
        ("+@nope", "names a category that does not exist"),
        ("+client|nope", "names a subcommand that does not exist here"),
        ("+select|0", "names an argument"),
        ("~* ~a", "write resetkeys before it"),
        ("&* &a", "write resetchannels before it"),
        ("%X~a", "is not one of %R~pattern"),
        ("(+get ~a)", "selectors"),
        ("blah", "\"blah\", is no rule"),
        ("<absent", "rule 1 removes a password"),
        ("secret-Word", "rule 1 is no rule"),
        (&format!("#{hash}"), "64 hex digits"),
    ] {
        let (line, message) = wrong(&format!("user a on\nuser b {rules}\n"));
        assert_eq!(line, 2);
        assert!(message.contains(part), "{rules}: {message}");
        assert!(message.contains("user \"b\"") && !message.contains("secret"), "{message}");
    }
    let many = ">1 >2 >3 >4 >5 >6 >7 >8 >9";
    assert!(wrong(&format!("user a {many}")).1.contains("one password too many"));
    assert_eq!(wrong("user a on\nuser a off").0, 2);
    assert!(wrong("acl a on").1.contains("begins with `user`"));
    assert!(wrong("user").1.contains("needs a name"));
}

#[test]
fn a_line_of_the_list_makes_the_same_user() {
    for rules in [
        "on >x ~a* %R~b %W~c &news.* +@read +set -get",
        "off nopass ~* &* +@all -@dangerous +info",
        "on #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b allkeys",
    ] {
        let line = user(rules).line();
        let again = users(&line);
        assert_eq!(again.get("u").unwrap().line(), line);
    }
}
