use crate::bad::BadRecord;
use crate::id::{ChangeId, Incarnation, MemberId};
use crate::record::{Member, RECORD_BYTES_MAX, Record, Stage, State};
use crate::sample::{address, record};

/// Parses what a change made of the record of three members.
fn parse(change: impl Fn(&mut Record)) -> Result<Record, BadRecord> {
    let mut changed = record(3);
    change(&mut changed);
    Record::parse(&changed.to_json(), "orders")
}

#[test]
fn a_record_reads_as_it_was_written() {
    assert_eq!(parse(|_| {}), Ok(record(3)));
    let change = |record: &mut Record| {
        record.membership.members[1].incarnation = Some(Incarnation(7));
        record.state =
            State::Changing { change: ChangeId(9), to: record.membership.clone(), stage: Stage::Held };
    };
    let mut expected = record(3);
    change(&mut expected);
    assert_eq!(parse(change), Ok(expected));
}

#[test]
fn the_layout_of_version_1() {
    let mut record = record(1);
    record.membership.members[0].incarnation = Some(Incarnation(0xbee));
    let text = r#"{"version":1,"cluster":"orders","cluster_id":"0000000000000000000000000000000c","epoch":1,"#
        .to_owned()
        + r#""record":"0000000000000000000000000000000a","predecessor":null,"shards":2,"membership":{"members":["#
        + r#"{"id":0,"incarnation":"00000000000000000000000000000bee","address":{"host":"h0","peer_base":7100,"#
        + r#""client_base":7400}}],"f":0,"e":0},"state":"active"}"#;
    assert_eq!(String::from_utf8(record.to_json()).unwrap(), text);
    let to = record.membership.clone();
    let membership = serde_json::to_string(&to).unwrap();
    for (stage, word) in [(Stage::Learning, "learning"), (Stage::Held, "held"), (Stage::Sealing, "sealing")] {
        record.state = State::Changing { change: ChangeId(0xd), to: to.clone(), stage };
        let state = format!(
            r#"{{"changing":{{"change":"0000000000000000000000000000000d","to":{membership},"stage":"{word}"}}}}"#
        );
        assert_eq!(String::from_utf8(record.to_json()).unwrap(), text.replace("\"active\"", &state));
        for (from, to) in [(word, "done"), (word, "Learning"), (&*format!(",\"stage\":\"{word}\""), "")] {
            let text = text.replace("\"active\"", &state).replace(from, to);
            assert!(matches!(Record::parse(text.as_bytes(), "orders"), Err(BadRecord::NoJson(_))), "{text}");
        }
    }
}

#[test]
fn bytes_that_are_no_record_say_why() {
    let parse = |text: &str| Record::parse(text.as_bytes(), "orders").unwrap_err();
    for text in ["", "{}", "[1]", "{\"version\":1}", "{\"version\":-1}"] {
        assert!(matches!(parse(text), BadRecord::NoJson(_)), "{text}");
    }
    let whole = String::from_utf8(record(3).to_json()).unwrap();
    for (from, to) in [
        ("\"epoch\":1", "\"epoch\":1,\"spare\":1"),
        ("\"host\":\"h0\"", "\"host\":\"h0\",\"spare\":1"),
        ("\"active\"", "\"passive\""),
        ("7100", "65536"),
        ("\"predecessor\":null", "\"predecessor\":\"1\""),
    ] {
        let changed = whole.replace(from, to);
        assert_ne!(changed, whole);
        assert!(matches!(parse(&changed), BadRecord::NoJson(_)), "{changed}");
    }
    for end in 0..whole.len() {
        assert!(matches!(parse(&whole[..end]), BadRecord::NoJson(_)), "{end}");
    }
    assert_eq!(parse(&" ".repeat(RECORD_BYTES_MAX + 1)), BadRecord::Long(RECORD_BYTES_MAX + 1));
    // What a newer release writes need not have any field that this one knows.
    assert_eq!(parse("{\"version\":2,\"groups\":[]}"), BadRecord::Newer(2));
}

#[test]
fn a_record_of_the_wrong_content_says_why() {
    let wrong = |change: &dyn Fn(&mut Record)| parse(change).unwrap_err();
    assert_eq!(wrong(&|it| it.version = 0), BadRecord::NoVersion(0));
    assert_eq!(
        wrong(&|it| it.cluster = "bids".into()),
        BadRecord::OtherCluster { there: "bids".into(), expected: "orders".into() }
    );
    assert_eq!(wrong(&|it| it.epoch = 0), BadRecord::Epoch(0));
    assert_eq!(wrong(&|it| it.epoch = 2), BadRecord::Epoch(2));
    assert_eq!(wrong(&|it| it.predecessor = Some(it.record)), BadRecord::Epoch(1));
    assert_eq!(wrong(&|it| it.shards = 0), BadRecord::Shards(0));
    assert_eq!(wrong(&|it| it.shards = 257), BadRecord::Shards(257));
    let nobody = |it: &mut Record| it.cluster.clear();
    let mut nameless = record(3);
    nobody(&mut nameless);
    assert_eq!(Record::parse(&nameless.to_json(), ""), Err(BadRecord::NoCluster));
}

#[test]
fn members_that_cannot_be_say_why() {
    let wrong =
        |change: &dyn Fn(&mut Vec<Member>)| parse(|it| change(&mut it.membership.members)).unwrap_err();
    assert_eq!(wrong(&|members| members.clear()), BadRecord::Members(0));
    let ten = |members: &mut Vec<Member>| *members = vec![members[0].clone(); 10];
    assert_eq!(wrong(&ten), BadRecord::Members(10));
    assert_eq!(wrong(&|members| members[2].id = MemberId(1)), BadRecord::Twice(MemberId(1)));
    assert_eq!(wrong(&|members| members.swap(0, 1)), BadRecord::Order(MemberId(0)));
    let copy = |members: &mut Vec<Member>| {
        members[0].incarnation = Some(Incarnation(1));
        members[2].incarnation = Some(Incarnation(1));
    };
    assert_eq!(wrong(&copy), BadRecord::SameIncarnation(MemberId(0), MemberId(2)));
    let host = |members: &mut Vec<Member>| members[1].address.host = "http://h1".into();
    assert_eq!(wrong(&host), BadRecord::Host { id: MemberId(1), host: "http://h1".into() });
    for base in [0, 65535] {
        let ports = |members: &mut Vec<Member>| members[1].address.peer_base = base;
        assert_eq!(wrong(&ports), BadRecord::Ports { id: MemberId(1), base, shards: 2 });
    }
    let quorums = |members: &mut Vec<Member>| members.truncate(2);
    assert_eq!(wrong(&quorums), BadRecord::Quorums { n: 2, f: 1, e: 1 });
}

#[test]
fn ports_of_one_host_are_apart() {
    let in_use = |between: (u8, u8), host: &str, port| BadRecord::PortInUse {
        between: (MemberId(between.0), MemberId(between.1)),
        host: host.into(),
        port,
    };
    let own = parse(|it| it.membership.members[0].address.client_base = 7101).unwrap_err();
    assert_eq!(own, in_use((0, 0), "h0", 7101));
    let move_to = |peer_base, client_base| {
        parse(move |it| {
            let address = &mut it.membership.members[1].address;
            (address.host, address.peer_base, address.client_base) = ("h0".into(), peer_base, client_base);
        })
    };
    assert_eq!(move_to(7399, 7600).unwrap_err(), in_use((0, 1), "h0", 7400));
    assert!(move_to(7102, 7402).is_ok(), "ranges may touch");
    // Whoever comes runs beside those who go, but a member may take its own place again.
    let change = |host: u8, id: u8| {
        parse(move |it| {
            let mut to = it.membership.clone();
            to.members[2].id = MemberId(id);
            to.members[2].address = address(host);
            it.state = State::Changing { change: ChangeId(1), to, stage: Stage::Learning };
        })
    };
    assert_eq!(change(2, 3).unwrap_err(), in_use((2, 3), "h2", 7100));
    assert!(change(3, 3).is_ok() && change(2, 2).is_ok());
}

#[test]
fn legal_sizes_are_those_of_the_laws_table() {
    for (n, f, e) in
        [(1, 0, 0), (2, 0, 0), (3, 1, 1), (4, 1, 1), (5, 2, 2), (6, 2, 2), (7, 3, 2), (8, 3, 3), (9, 4, 3)]
    {
        let sized = |f, e| {
            parse(move |it| {
                let member = it.membership.members[0].clone();
                let member = |id: u8| {
                    let mut member = member.clone();
                    (member.id, member.address) = (MemberId(id), address(id));
                    member
                };
                it.membership.members = (0..n).map(member).collect();
                (it.membership.f, it.membership.e) = (f, e);
            })
        };
        assert!(sized(f, e).is_ok(), "{n} {f} {e}");
        for (f, e) in [(f + 1, e), (f, e + 1)] {
            assert_eq!(sized(f, e).unwrap_err(), BadRecord::Quorums { n: n.into(), f, e });
        }
        assert!(f == 0 || e == 0 || sized(f, e - 1).is_ok(), "a larger fast quorum is legal");
    }
}
