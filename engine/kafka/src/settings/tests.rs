use super::*;
use rdkafka::producer::BaseProducer;

fn settings() -> Settings {
    Settings { brokers: "127.0.0.1:9092".into(), ..Settings::default() }
}

#[test]
fn the_defaults_can_be_used_as_soon_as_a_broker_is_named() {
    assert_eq!(settings().check(), Ok(()));
    assert_eq!(Settings::default().check(), Err(BadSettings::NoBroker));
}

#[test]
fn what_cannot_be_used_is_said() {
    for topic in ["", ".", "..", "a/b", &"x".repeat(250)] {
        let bad = Settings { topic: topic.into(), ..settings() };
        assert_eq!(bad.check(), Err(BadSettings::Topic(topic.into())));
    }
    let one = Settings { cursor_topic: "committed".into(), ..settings() };
    assert_eq!(one.check(), Err(BadSettings::OneTopic("committed".into())));
    assert_eq!(Settings { batch_bytes: 0, ..settings() }.check(), Err(BadSettings::NoRoom));
    assert_eq!("json".parse::<Format>(), Err(BadSettings::Format("json".into())));
    for format in [Format::Batch, Format::Record] {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
}

#[test]
fn no_property_can_undo_exactly_once() {
    for name in RESERVED {
        let bad = Settings { properties: [(name.into(), "1".into())].into(), ..settings() };
        assert_eq!(bad.check(), Err(BadSettings::Reserved(name.into())));
    }
    let passed = Settings { properties: [("compression.type".into(), "zstd".into())].into(), ..settings() };
    assert_eq!(passed.check(), Ok(()));
    assert_eq!(passed.client().get("compression.type"), Some("zstd"));
}

#[test]
fn no_value_of_a_property_is_printed() {
    let secret = Settings { properties: [("sasl.password".into(), "hidden".into())].into(), ..settings() };
    let text = format!("{secret:?}");
    assert!(text.contains("sasl.password") && !text.contains("hidden"), "{text}");
}

#[test]
fn what_the_documentation_says_is_built_into_librdkafka() {
    let makes = |properties: &[(&str, &str)]| {
        let mut config = settings().client();
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config.create::<BaseProducer>().is_ok()
    };
    assert!(makes(&[("security.protocol", "ssl")]));
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let user = [("sasl.mechanism", mechanism), ("sasl.username", "u"), ("sasl.password", "p")];
        assert!(makes(&[&[("security.protocol", "sasl_ssl")], &user[..]].concat()), "{mechanism}");
    }
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        assert!(makes(&[("compression.type", compression)]), "{compression}");
    }
    assert!(!makes(&[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "GSSAPI")]));
}
