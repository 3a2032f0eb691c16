//! Execution providers: what a session computes on. Chosen by name, and refused when the library has none of that name;
//! `ort` alone would fall back to the CPU in silence.

use std::fmt;
use std::str::FromStr;

use ort::memory::AllocationDevice;

use super::RuntimeError;

/// What a session computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Provider {
    /// The processor; every library has it.
    #[default]
    Cpu,
    /// An NVIDIA GPU; needs the GPU build of ONNX Runtime with its provider libraries beside it, CUDA and cuDNN.
    Cuda,
    /// An NVIDIA GPU through TensorRT, which makes an engine of each graph when it first runs; what it does not know, CUDA computes.
    TensorRt,
    /// An AMD GPU; needs a build of ONNX Runtime with ROCm (to version 1.22).
    Rocm,
    /// Apple's CoreML; what it does not know, the processor computes.
    CoreMl,
}

impl Provider {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Cuda, Self::TensorRt, Self::Rocm, Self::CoreMl];

    /// The name in ONNX Runtime.
    #[must_use]
    pub fn ort_name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda => "CUDAExecutionProvider",
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::Rocm => "ROCMExecutionProvider",
            Self::CoreMl => "CoreMLExecutionProvider",
        }
    }

    /// For `SessionBuilder::with_execution_providers`: empty for the CPU, which is always there; otherwise one that fails
    /// loudly when it cannot be set up.
    #[must_use]
    pub fn dispatch(self) -> Vec<ort::ep::ExecutionProviderDispatch> {
        match self {
            Self::Cpu => Vec::new(),
            Self::Cuda => vec![ort::ep::CUDA::default().build().error_on_failure()],
            Self::TensorRt => {
                let cuda = ort::ep::CUDA::default().build().error_on_failure();
                vec![ort::ep::TensorRT::default().build().error_on_failure(), cuda]
            }
            Self::Rocm => vec![ort::ep::ROCm::default().build().error_on_failure()],
            Self::CoreMl => vec![ort::ep::CoreML::default().build().error_on_failure()],
        }
    }

    /// The memory that it computes in, by ONNX Runtime's name; none where that is the processor's own.
    #[must_use]
    pub fn device(self) -> Option<AllocationDevice<'static>> {
        match self {
            Self::Cpu | Self::CoreMl => None,
            Self::Cuda | Self::TensorRt => Some(AllocationDevice::CUDA),
            Self::Rocm => Some(AllocationDevice::HIP),
        }
    }

    /// Whether it has products of bfloat16 and float16.
    #[must_use]
    pub fn has_half(self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRt | Self::Rocm)
    }

    /// What to do when the library lacks it.
    fn remedy(self) -> &'static str {
        match self {
            Self::Cpu => "use a complete build of ONNX Runtime",
            Self::Cuda => {
                "use the provider cpu, or point ORT_DYLIB_PATH (or --ort-library) at the library of the GPU build (the PyPI \
                 package onnxruntime-gpu) with its libonnxruntime_providers_cuda beside it"
            }
            Self::TensorRt => {
                "use the provider cuda or cpu, or point ORT_DYLIB_PATH (or --ort-library) at the library of the GPU build (the PyPI \
                 package onnxruntime-gpu) with its libonnxruntime_providers_tensorrt beside it, and install TensorRT"
            }
            Self::Rocm => {
                "use the provider cpu, or point ORT_DYLIB_PATH (or --ort-library) at a library that was built with ROCm"
            }
            Self::CoreMl => "use the provider cpu, or a library for macOS (--ort-library), whose builds have CoreML",
        }
    }

    /// Whether `available`, the names that a library gave, has it.
    ///
    /// # Errors
    /// [`RuntimeError::NoProvider`], which says what to do.
    pub fn check(self, available: &[String]) -> Result<(), RuntimeError> {
        if available.iter().any(|name| name == self.ort_name()) {
            return Ok(());
        }
        Err(RuntimeError::NoProvider { provider: self, available: available.to_vec(), remedy: self.remedy() })
    }

    /// The library of the driver that it needs; none for the processor.
    fn driver(self) -> Option<&'static str> {
        match self {
            Self::Cpu | Self::CoreMl => None,
            Self::Cuda | Self::TensorRt if cfg!(windows) => Some("nvcuda.dll"),
            Self::Cuda | Self::TensorRt => Some("libcuda.so.1"),
            Self::Rocm => Some("libamdhip64.so"),
        }
    }

    /// Whether the machine has its driver. ONNX Runtime lists a provider that its build has, also where there is no GPU at all, and then
    /// fails at the first session. `loads` asks the system's loader for a library by name.
    ///
    /// # Errors
    /// [`RuntimeError::NoDriver`], which says what to do.
    pub fn check_driver(self, loads: impl Fn(&str) -> Result<(), String>) -> Result<(), RuntimeError> {
        let Some(library) = self.driver() else { return Ok(()) };
        loads(library).map_err(|reason| RuntimeError::NoDriver { provider: self, library, reason })
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::Rocm => "rocm",
            Self::CoreMl => "coreml",
        })
    }
}

/// A provider name that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no provider `{name}`: say cpu or cuda (or tensorrt, rocm, coreml)")]
pub struct UnknownProvider {
    /// What was said.
    pub name: String,
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        let said = name.trim().to_ascii_lowercase();
        let same = |provider: &Self| provider.to_string() == said || provider.ort_name().eq_ignore_ascii_case(&said);
        Self::ALL.into_iter().find(same).ok_or_else(|| UnknownProvider { name: name.to_owned() })
    }
}
