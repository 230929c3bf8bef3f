//! Links tests of a build for GPUs as the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // Test programs too take the functions of CUDA's libraries from `pixio-eval-cuda`.
        println!("cargo:rustc-link-arg=-Wl,--undefined=pixio_eval_cuda_resolve");
    }
}
