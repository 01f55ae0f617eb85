//! Makes code of the service that gRPC offers.

use std::env;
use std::path::PathBuf;

fn main() {
    let protos = "../../wire/proto";
    println!("cargo:rerun-if-changed={protos}");
    let descriptors = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names it")).join("isonomy.bin");
    tonic_prost_build::configure()
        .build_client(false)
        .file_descriptor_set_path(descriptors)
        .compile_protos(&[format!("{protos}/isonomy/v1/decisions.proto")], &[protos])
        .expect("the descriptions of gRPC are code of protobuf");
}
