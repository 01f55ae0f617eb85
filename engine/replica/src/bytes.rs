//! Keys and values are bytes. People see them as text where they are text, and else as what they are.

use clap::Args;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// The options that name a key by its bytes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct KeyBytesArgs {
    /// The bytes of the key as hexadecimal digits, instead of KEY
    #[arg(long, value_name = "DIGITS", value_parser = from_hex, conflicts_with = "key_base64")]
    key_hex: Option<Decoded>,
    /// The bytes of the key in base64, instead of KEY
    #[arg(long, value_name = "BASE64", value_parser = from_base64)]
    key_base64: Option<Decoded>,
}

impl KeyBytesArgs {
    /// The key, if one of the options names it.
    pub(crate) fn get(&self) -> Option<Vec<u8>> {
        self.key_hex.as_ref().or(self.key_base64.as_ref()).map(|decoded| decoded.0.clone())
    }
}

/// The arguments that name a key, as text or by its bytes.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeyArgs {
    /// The key
    #[arg(required_unless_present_any = ["key_hex", "key_base64"],
          conflicts_with_all = ["key_hex", "key_base64"])]
    key: Option<OsString>,
    #[command(flatten)]
    bytes: KeyBytesArgs,
}

impl KeyArgs {
    pub(crate) fn get(&self) -> Vec<u8> {
        let typed = || self.key.as_ref().map(|key| key.as_bytes().to_vec());
        self.bytes.get().or_else(typed).expect("clap requires one of them")
    }
}

/// The bytes of an argument.
#[derive(Clone, Debug)]
struct Decoded(Vec<u8>);

fn from_hex(text: &str) -> Result<Decoded, String> {
    let decoded = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    decoded.map(Decoded).map_err(|error| format!("{error}; give two hexadecimal digits for each byte"))
}

fn from_base64(text: &str) -> Result<Decoded, String> {
    let decoded = BASE64.decode(text.as_bytes());
    decoded.map(Decoded).map_err(|error| format!("{error}; give base64 with its padding"))
}

/// Bytes in the form for a sentence.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("'{text}'"),
        Err(_) => format!("0x{}", data_encoding::HEXLOWER.encode(bytes)),
    }
}

/// Bytes as base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Puts bytes into a JSON object, which has no type for bytes: as text if they are UTF-8, otherwise in base64 under a
/// name that says so.
pub(crate) fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            object.insert(name.into(), text.into());
        }
        Err(_) => {
            object.insert(name.into(), Value::Null);
            object.insert(format!("{name}_base64"), base64(bytes).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_named_in_hex_and_base64() {
        assert_eq!(from_hex("00fFc3").unwrap().0, [0, 0xff, 0xc3]);
        assert_eq!(from_base64("AP/D").unwrap().0, [0, 0xff, 0xc3]);
        for wrong in ["0", "0g", "0x00"] {
            assert!(from_hex(wrong).unwrap_err().contains("two hexadecimal digits"), "{wrong}");
        }
        assert!(from_base64("AP_D").unwrap_err().contains("base64"));
    }

    #[test]
    fn what_is_no_text_is_marked() {
        let mut object = Map::new();
        put(&mut object, "key", "é".as_bytes());
        put(&mut object, "value", b"\xff\0");
        assert_eq!(Value::Object(object).to_string(), r#"{"key":"é","value":null,"value_base64":"/wA="}"#);
        assert_eq!((quoted(b"a b"), quoted(b"\xff\0")), ("'a b'".into(), "0xff00".into()));
    }
}
