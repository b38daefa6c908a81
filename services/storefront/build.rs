//! The client app is part of the binary: a file added to it must reach the next build.

fn main() {
    println!("cargo::rerun-if-changed=../../web");
    println!("cargo::rerun-if-changed=build.rs");
}
