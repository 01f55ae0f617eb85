use super::*;

fn changed(changes: &[&str]) -> Result<Chosen, BadTuning> {
    Chosen::default().changed(&changes.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
}

#[test]
fn what_was_not_chosen_has_its_default() {
    assert_eq!(Chosen::default().tuning(), Tuning::DEFAULT);
    let chosen = changed(&["window=7", "path=slow", "fast_path_ms=3", "rescue=true"]).unwrap();
    let expected =
        Tuning { window: 7, path: PathMode::Slow, fast_path_us: 3000, rescue: true, ..Tuning::DEFAULT };
    assert_eq!(chosen.tuning(), expected);
    assert_eq!(Chosen::parse(&chosen.to_json()), Ok(chosen));
    assert!(chosen.has(Name::Path) && !chosen.has(Name::ResendMs));
    let back = ["window=default", "path=default", "fast_path_ms=default", "rescue=default"];
    assert_eq!(chosen.changed(&back.map(String::from)), Ok(Chosen::default()));
}

#[test]
fn each_setting_reaches_the_replicas() {
    let changes = [
        "fast_path_ms=1",
        "resend_ms=20",
        "recover_ms=40",
        "suspect_ms=30",
        "path=fast",
        "guardrail_ms=500",
        "rescue=true",
        "window=63",
    ];
    let tuning = Tuning {
        fast_path_us: 1_000,
        resend_us: 20_000,
        recover_us: 40_000,
        suspect_us: 30_000,
        path: PathMode::Fast,
        guardrail_us: 500_000,
        rescue: true,
        window: 63,
    };
    let chosen = changed(&changes).unwrap();
    assert_eq!(chosen.tuning(), tuning);
    assert!(Name::ALL.iter().all(|name| chosen.has(*name)));
}

#[test]
fn the_layout_is_that_of_the_document() {
    let chosen = changed(&["path=slow", "window=16"]).unwrap();
    let text = r#"{"version":1,"settings":{"path":"slow","window":16}}"#;
    assert_eq!(String::from_utf8(chosen.to_json()).unwrap(), text);
    let word = Word { version: 1, by: MemberId(4), why: Why::InVain, since_ms: 7 };
    assert_eq!(word.to_json(), br#"{"version":1,"by":4,"why":"in_vain","since_ms":7}"#);
    assert_eq!(Word::parse(&word.to_json()), Ok(word));
}

#[test]
fn bad_values_are_told_apart() {
    let with = |settings: &str| Chosen::parse(format!(r#"{{"version":1,"settings":{settings}}}"#).as_bytes());
    let no_json = |settings| matches!(with(settings), Err(BadTuning::NoJson(_)));
    assert!(no_json("7") && no_json(r#"{"window":-1}"#) && no_json(r#"{"path":"quick"}"#));
    assert!(no_json(r#"{"windows":8}"#), "an unknown name");
    assert_eq!(Chosen::parse(br#"{"version":2,"knobs":{}}"#), Err(BadTuning::Newer(2)));
    assert_eq!(Chosen::parse(br#"{"version":0,"settings":{}}"#), Err(BadTuning::NoVersion(0)));
    assert_eq!(Chosen::parse(&[b' '; BYTES_MAX + 1]), Err(BadTuning::Long(BYTES_MAX + 1)));
    for name in Name::ALL.into_iter().filter(|name| name.range().is_some()) {
        let range = name.range().unwrap();
        for value in [range.start() - 1, range.end() + 1, u64::MAX] {
            let bad = with(&format!(r#"{{"{name}":{value}}}"#));
            assert_eq!(bad, Err(BadTuning::Range { name, value }));
        }
    }
    let order = with(r#"{"suspect_ms":10}"#);
    assert_eq!(order, Err(BadTuning::Order { fast_path_ms: 10, suspect_ms: 10, recover_ms: 500 }));
    assert!(with(r#"{"recover_ms":40}"#).is_err() && with(r#"{"recover_ms":50}"#).is_ok());
}

#[test]
fn an_operator_is_told_what_to_write() {
    let said = |change: &str| changed(&[change]).unwrap_err().to_string();
    assert!(said("slow").contains("write NAME=VALUE"));
    assert!(said("speed=7").contains("the settings are fast_path_ms, resend_ms,"));
    assert!(said("path=quick").contains("give auto, fast or slow"));
    assert!(said("rescue=1").contains("give true or false"));
    assert!(said("window=all").contains("give a number from 1 to 63"));
    assert!(said("window=64").contains("window cannot be 64; give a number from 1 to 63"));
}
