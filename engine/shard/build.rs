//! Puts `src/rings` between glommio and the kernel in the unit tests of this package. A linker argument reaches only the
//! targets of the package whose build script prints it, so the program has the same build script.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for function in ["__sys_io_uring_setup", "io_uring_submit"] {
        println!("cargo:rustc-link-arg=-Wl,--wrap={function}");
    }
}
