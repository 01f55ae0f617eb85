//! A service that decides and reads: `cargo run --example decide -p isonomy-wire --features client -- HOST:PORT`.

use isonomy_wire::client::{Client, Decided};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Client ports of any of the replicas; they name the others.
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let client = Client::connect(&addresses).await?;
    let first = client.decide("order-17", "accepted").await?;
    println!("decision {} of order-17", first.key_seq);
    // Decides only if no one has decided the key since; otherwise the answer has the key's latest decision.
    match client.decide_if("order-17", "paid", first.key_seq).await? {
        Decided::Committed(second) => println!("decision {} of order-17", second.key_seq),
        Decided::Rejected { key_seq, value } => println!("it is at decision {key_seq}, {value:?}"),
    }
    if let Some(now) = client.read("order-17").await? {
        println!("now it is {}", String::from_utf8_lossy(&now.value));
    }
    client.close().await;
    Ok(())
}
