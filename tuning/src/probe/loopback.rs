//! The speed of TCP on this machine: one stream's throughput, and the round trip of a small message.

use hdrhistogram::Histogram;
use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The size of one write of the stream, and the room of a read.
const CHUNK_BYTES: usize = 256 << 10;
/// The size of a small message.
const MESSAGE_BYTES: usize = 64;
/// How long each of the two is measured.
const SPAN: Duration = Duration::from_secs(1);
/// Longer round trips count as this.
const ROUND_TRIP_US_MAX: u64 = 60_000_000;

/// Figures of TCP on 127.0.0.1.
pub struct Loopback {
    /// The throughput of one stream.
    pub gib_per_second: f64,
    /// The median round trip of 64 bytes.
    pub round_trip_p50_us: u64,
    /// 99 of 100 round trips took no longer.
    pub round_trip_p99_us: u64,
}

impl Loopback {
    /// Talks to a thread of its own for two seconds.
    ///
    /// # Errors
    /// No connection could be made on 127.0.0.1, or it broke.
    pub fn measure() -> Result<Loopback> {
        let gib_per_second = throughput()?;
        let round_trips = round_trips()?;
        Ok(Loopback {
            gib_per_second,
            round_trip_p50_us: round_trips.value_at_quantile(0.5),
            round_trip_p99_us: round_trips.value_at_quantile(0.99),
        })
    }
}

fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

fn throughput() -> Result<f64> {
    let (mut near, mut far) = pair()?;
    let receiver = std::thread::spawn(move || {
        let (mut room, mut received) = (vec![0; CHUNK_BYTES], 0);
        while let Ok(count @ 1..) = far.read(&mut room) {
            received += count;
        }
        received
    });
    let (chunk, began) = (vec![0x5a; CHUNK_BYTES], Instant::now());
    while began.elapsed() < SPAN {
        near.write_all(&chunk)?;
    }
    drop(near);
    let received = receiver.join().expect("the receiver does not panic");
    Ok(received as f64 / f64::from(1 << 30) / began.elapsed().as_secs_f64())
}

fn round_trips() -> Result<Histogram<u64>> {
    let (mut near, mut far) = pair()?;
    let echo = std::thread::spawn(move || {
        let mut message = [0; MESSAGE_BYTES];
        while far.read_exact(&mut message).and_then(|()| far.write_all(&message)).is_ok() {}
    });
    let mut latency = Histogram::new_with_bounds(1, ROUND_TRIP_US_MAX, 3).expect("the bounds are legal");
    let (mut message, began) = ([0x5a; MESSAGE_BYTES], Instant::now());
    while began.elapsed() < SPAN {
        let sent = Instant::now();
        near.write_all(&message)?;
        near.read_exact(&mut message)?;
        latency.saturating_record((sent.elapsed().as_micros() as u64).max(1));
    }
    drop(near);
    echo.join().expect("the echo does not panic");
    Ok(latency)
}
