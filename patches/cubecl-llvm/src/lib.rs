//! The part of `cubecl-llvm`'s interface that `cubecl-cuda` names, without LLVM.
//!
//! `cubecl-cuda` links two compilers and picks one when it is built: with its feature `cpp` every
//! kernel goes through CUDA C++ and NVRTC, and nothing here is ever called. The real crate's build
//! script downloads an LLVM bundle, which fails on machines that reach only package registries.
//! Should a kernel come here all the same, compiling it is an error that says so.

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_server::compiler::{CompilationError, Compiler};
use cubecl_server::kernel::BufferIOAttr;

/// The machine that code is generated for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// The host processor.
    #[default]
    Cpu,
    /// An NVIDIA device, by PTX.
    Nvptx,
}

/// The compiler that is left out.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// The machine that code would be generated for.
    pub target: LlvmTarget,
}

/// What the left-out compiler would be told.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Architecture of an AMD device.
    pub arch: Option<()>,
    /// Architecture of an NVIDIA device.
    pub sm_arch: Option<SmArch>,
    /// PTX version to emit.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether scalars travel in the kernel's parameter block.
    pub grid_constants: bool,
}

/// A compiled NVIDIA module.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// NUL-terminated PTX assembly.
    pub ptx: Vec<core::ffi::c_char>,
    /// Symbol of the kernel's entry point.
    pub entrypoint: String,
    /// Intermediate code, for logs.
    pub ir: String,
    /// Shared memory that a launch needs, in bytes.
    pub shared_memory_size: usize,
    /// Access modes of the buffers, in binding order.
    pub io: Vec<BufferIOAttr>,
}

/// What the left-out compiler would return.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// Code for an NVIDIA device.
    NvptxCode(NvptxModule),
    /// Code for another machine.
    Other,
}

impl core::fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NvptxCode(module) => f.write_str(&module.ir),
            Self::Other => f.write_str("no code"),
        }
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _kernel: KernelDefinition,
        _options: &Self::CompilationOptions,
    ) -> Result<Self::Representation, CompilationError> {
        Err(CompilationError::Validation {
            reason: "this build has no LLVM compiler; build cubecl-cuda with its feature `cpp`"
                .to_string(),
            backtrace: Default::default(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}

/// NVIDIA's intermediate assembly.
pub mod nvptx {
    /// Versions of PTX.
    pub mod ptx_version {
        /// A PTX version, 8.7 as `87`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct PtxVersion(u32);

        impl PtxVersion {
            /// The version for a driver: none, since no PTX is emitted here.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl core::fmt::Display for PtxVersion {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "ptx{}", self.0)
            }
        }
    }
}

/// What the targets share.
pub mod shared {
    /// Which device features the left-out compiler supports.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// A device kind whose features are narrowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// An NVIDIA device.
            Nvptx,
        }

        /// Narrows nothing: it is called only when the left-out compiler is the chosen one.
        pub fn restrict_features(_props: &mut DeviceProperties, _target: GpuTarget) {}
    }
}
