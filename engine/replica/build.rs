//! Puts `src/rings.rs` between glommio and the kernel.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--wrap=__sys_io_uring_setup");
}
