use crate::ModelError;
use burn::tensor::Device;
use measure::Precision;
use std::fmt;
use std::str::FromStr;

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor, with Burn's flex backend.
    Cpu,
    /// An NVIDIA device by its number; only in builds with the feature `cuda`.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let unknown = || ModelError::Device {
            device: text.to_string(),
            reason: "unknown; use cpu, cuda or cuda:NUMBER".into(),
        };
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device for computing in a precision.
    ///
    /// # Errors
    /// CUDA in a build without it, or on a machine without its driver; bfloat16 anywhere else.
    pub fn open(self, precision: Precision) -> Result<Device, ModelError> {
        match self {
            Self::Cpu if precision == Precision::Bf16 => Err(ModelError::Device {
                device: self.to_string(),
                reason: "precision bf16 needs --device cuda; f32 runs here too".into(),
            }),
            Self::Cpu => Ok(Device::flex()),
            Self::Cuda(number) => self.open_cuda(number),
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn open_cuda(self, _number: usize) -> Result<Device, ModelError> {
        Err(ModelError::Device {
            device: self.to_string(),
            reason: "this build has no CUDA; use --device cpu, or build with \
                     `cargo build --release --features cuda`"
                .into(),
        })
    }

    #[cfg(feature = "cuda")]
    fn open_cuda(self, number: usize) -> Result<Device, ModelError> {
        for library in ["libcuda.so.1", "libnvrtc.so"] {
            can_load(library).map_err(|error| ModelError::Device {
                device: self.to_string(),
                reason: format!(
                    "{library} cannot be loaded ({error}); install the NVIDIA driver and CUDA's \
                     NVRTC, or use --device cpu"
                ),
            })?;
        }
        gpu::use_one_queue();
        Ok(Device::cuda(number))
    }
}

/// Whether the loader finds a library, or its versioned names in the case of NVRTC. Burn finds out
/// by itself only on a worker thread, which then panics.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
fn can_load(library: &str) -> Result<(), libloading::Error> {
    let versions = ["", ".13", ".12"];
    let names = versions.iter().map(|version| format!("{library}{version}"));
    let load = |name: String| {
        // SAFETY: the driver's own libraries are loaded, whose initialisers make no demands; they
        // are the ones that the CUDA runtime loads next.
        unsafe { libloading::Library::new(name) }.map(drop)
    };
    let mut results = names.map(load);
    let first = results.next().unwrap_or(Ok(()));
    first.or_else(|error| results.find(Result::is_ok).unwrap_or(Err(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_unknown_ones_explained() {
        assert_eq!("cpu".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        assert_eq!("cuda:1".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(1));
        for name in ["gpu", "cuda:x", "cpu:1"] {
            let message = name.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains("use cpu, cuda or cuda:NUMBER"), "{message}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_in_a_cpu_build_says_how_to_get_it() {
        let message = DeviceChoice::Cuda(0).open(Precision::F32).unwrap_err().to_string();
        assert!(message.contains("--features cuda"), "{message}");
    }
}
