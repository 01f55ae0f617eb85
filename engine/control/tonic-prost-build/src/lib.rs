//! Stands in for the crate `tonic-prost-build`, so that no machine needs a `protoc`.
//!
//! The build script of etcd-client gives its .proto files to `tonic-prost-build`, which runs the program `protoc`.
//! `[patch.crates-io]` in the workspace's Cargo.toml puts this package in that crate's place. It reads the files with
//! protox, a compiler in Rust; prost-build and tonic-build generate the code as they always do. The package has the
//! calls that the build scripts of etcd-client and of the doors make and no others, so a build script that makes another
//! one does not compile.

use proc_macro2::TokenStream;
use prost::Message;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What the crate calls by this name.
#[must_use]
pub fn configure() -> Builder {
    Builder { build_client: true, build_server: true, descriptors: None }
}

/// How code is generated.
#[derive(Debug)]
pub struct Builder {
    build_client: bool,
    build_server: bool,
    descriptors: Option<PathBuf>,
}

impl Builder {
    /// Whether code for servers is generated as well.
    #[must_use]
    pub fn build_server(self, build_server: bool) -> Builder {
        Builder { build_server, ..self }
    }

    /// Whether code for clients is generated as well.
    #[must_use]
    pub fn build_client(self, build_client: bool) -> Builder {
        Builder { build_client, ..self }
    }

    /// Where the files are written as a set of descriptors, as reflection needs them.
    #[must_use]
    pub fn file_descriptor_set_path(self, path: impl AsRef<Path>) -> Builder {
        Builder { descriptors: Some(path.as_ref().into()), ..self }
    }

    /// Generates code for `files`, whose imports are below `includes`, into the build's output directory.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is no protobuf, with the place in the file; code that cannot be written.
    pub fn compile_protos(self, files: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> io::Result<()> {
        let files = protox::compile(files, includes).map_err(io::Error::other)?;
        if let Some(path) = &self.descriptors {
            fs::write(path, files.encode_to_vec())?;
        }
        prost_build::Config::new().service_generator(Box::new(self)).compile_fds(files)
    }
}

impl prost_build::ServiceGenerator for Builder {
    fn generate(&mut self, mut service: prost_build::Service, code: &mut String) {
        let methods = std::mem::take(&mut service.methods).into_iter().map(Method).collect();
        let service = Service { service, methods };
        let generator = tonic_build::CodeGenBuilder::new();
        if self.build_client {
            *code += &generator.generate_client(&service, "super").to_string();
        }
        if self.build_server {
            *code += &generator.generate_server(&service, "super").to_string();
        }
    }
}

/// A service of prost-build, in the words of tonic-build.
struct Service {
    service: prost_build::Service,
    methods: Vec<Method>,
}

impl tonic_build::Service for Service {
    type Comment = String;
    type Method = Method;

    fn name(&self) -> &str {
        &self.service.name
    }

    fn package(&self) -> &str {
        &self.service.package
    }

    fn identifier(&self) -> &str {
        &self.service.proto_name
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn comment(&self) -> &[String] {
        &self.service.comments.leading
    }
}

/// A call of a service of prost-build, in the words of tonic-build.
struct Method(prost_build::Method);

impl tonic_build::Method for Method {
    type Comment = String;

    fn name(&self) -> &str {
        &self.0.name
    }

    fn identifier(&self) -> &str {
        &self.0.proto_name
    }

    fn codec_path(&self) -> &str {
        "tonic_prost::ProstCodec"
    }

    fn client_streaming(&self) -> bool {
        self.0.client_streaming
    }

    fn server_streaming(&self) -> bool {
        self.0.server_streaming
    }

    fn comment(&self) -> &[String] {
        &self.0.comments.leading
    }

    fn deprecated(&self) -> bool {
        self.0.options.deprecated()
    }

    /// The types lie in the module around the service. The calls take and return none of Google's own.
    fn request_response_name(&self, module: &str, _google_types: bool) -> (TokenStream, TokenStream) {
        let path = |name: &str| format!("{module}::{name}").parse().expect("prost-build names types of Rust");
        (path(&self.0.input_type), path(&self.0.output_type))
    }
}
