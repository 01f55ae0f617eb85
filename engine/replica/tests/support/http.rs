//! A client of HTTP that hides nothing: one connection for each request.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

use super::PATIENCE;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The last part of the problem's type.
    pub fn problem(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["type"].as_str().unwrap().trim_start_matches("/problems/").to_owned()
    }
}

/// Sends a request and reads the answer, if the other side is there and gives a whole one.
pub fn try_ask(port: u16, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
    let mut stream = open(port)?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    let mut bytes = (request + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).ok()?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok()?;
    parse(&all)
}

/// The same with an answer that must come.
pub fn ask(port: u16, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    try_ask(port, method, path, fields, body).expect("a whole answer")
}

pub fn get(port: u16, path: &str) -> Answer {
    ask(port, "GET", path, &[], b"")
}

pub fn post(port: u16, path: &str, body: &str) -> Answer {
    ask(port, "POST", path, &[("content-type", "application/json")], body.as_bytes())
}

pub fn open(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = &bytes[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { unchunked(rest)? } else { rest.to_vec() };
    Some(Answer { status, head, body })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}
