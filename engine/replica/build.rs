//! Puts the shard's `rings` between glommio and the kernel. A linker argument reaches only the targets of the package
//! whose build script prints it, so the shard has the same one for its unit tests.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for function in ["__sys_io_uring_setup", "io_uring_submit"] {
        println!("cargo:rustc-link-arg-bins=-Wl,--wrap={function}");
    }
}
