//! Times matrix products of a training step under CubeCL's kernels, to choose those that the gpu crate uses:
//!
//!     cargo run --release -p gpu --features cuda --example products [NAME...]
//!
//! Prints TFLOP/s, the fastest of ten, of the kernels named, all without; and which give another product than CubeCL's
//! default.

use burn::tensor::{Device, Distribution, FloatDType, Tensor};
use burn_backend::{DType, Shape, TensorMetadata};
use burn_cubecl::CubeBackend;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::multi_level::Strategy as Levels;
use cubek::matmul::multi_level::routines::batch::ordered_double_buffering::OrderedSelectionArgs;
use cubek::matmul::routine::BlueprintStrategy::{self, Inferred};
use cubek::matmul::strategy::Strategy;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// CubeCL's kernels that ran on an H200, and two that fail there.
fn strategies() -> [(&'static str, Strategy); 8] {
    let ordered = OrderedSelectionArgs {
        partition_k: Some(2),
        row_count: Some(8),
        rows_per_plane: Some(2),
        ..Default::default()
    };
    [
        ("specialized_tma_mma", Levels::SpecializedTmaMma(BlueprintStrategy::default())),
        ("double_tma_mma", Levels::DoubleTmaMma(BlueprintStrategy::default())),
        ("simple_tma_mma", Levels::SimpleTmaMma(BlueprintStrategy::default())),
        ("ordered8_mma", Levels::OrderedDoubleMma(Inferred(ordered))),
        ("simple_cyclic_mma", Levels::SimpleCyclicMma(BlueprintStrategy::default())),
        ("simple_cyclic_cmma", Levels::SimpleCyclicCmma(BlueprintStrategy::default())),
        ("double_tma_cmma", Levels::DoubleTmaCmma(BlueprintStrategy::default())),
        ("specialized_tma_cmma", Levels::SpecializedTmaCmma(BlueprintStrategy::default())),
    ]
    .map(|(name, strategy)| (name, strategy.into()))
}

/// Batches, rows, columns and what is summed over; which factor is read transposed.
struct Problem {
    name: &'static str,
    size: [usize; 4],
    transposed: [bool; 2],
}

const PROBLEMS: [Problem; 7] = [
    Problem { name: "forward", size: [1, 16384, 2560, 640], transposed: [false, false] },
    Problem { name: "narrow", size: [1, 16384, 640, 2560], transposed: [false, false] },
    Problem { name: "of input", size: [1, 16384, 2560, 640], transposed: [false, true] },
    Problem { name: "of weight", size: [4, 640, 2560, 4096], transposed: [true, false] },
    Problem { name: "scores", size: [640, 256, 256, 64], transposed: [false, true] },
    Problem { name: "heads", size: [640, 256, 64, 256], transposed: [false, false] },
    Problem { name: "of values", size: [640, 256, 64, 256], transposed: [true, false] },
];

fn factor(device: &Device, dims: [usize; 3], transposed: bool, dtype: FloatDType) -> CubeTensor {
    let [b, m, n] = dims;
    let laid = if transposed { [b, n, m] } else { [b, m, n] };
    let normal = Distribution::Normal(0.0, 1.0);
    let x = Tensor::<3>::random(laid, normal, device).cast(dtype);
    let mut x = x.try_into_primitive::<CubeBackend>().expect("a device of CubeCL");
    if transposed {
        x.meta.swap(1, 2);
    }
    x
}

fn launch(
    strategy: &Strategy,
    a: &CubeTensor,
    b: &CubeTensor,
    out: &CubeTensor,
) -> Result<(), String> {
    gpu::launch_product(strategy, out, a, b).map_err(|error| format!("{error:?}"))
}

/// The product on the host.
fn product(
    strategy: &Strategy,
    a: &CubeTensor,
    b: &CubeTensor,
    like: &CubeTensor,
) -> Result<Vec<f32>, String> {
    let (client, device, shape) = (like.client.clone(), like.device.clone(), like.shape());
    let out = empty_device_contiguous_dtype(client, device, shape, like.dtype);
    launch(strategy, a, b, &out)?;
    let out = Tensor::<3>::from_primitive::<CubeBackend>(out);
    out.try_into_vec_as::<f32>().map_err(|error| format!("{error:?}"))
}

fn is_close(found: &[f32], right: &Result<Vec<f32>, String>) -> bool {
    let Ok(right) = right else { return false };
    let most = right.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    found.iter().zip(right).all(|(a, b)| (a - b).abs() < 0.02 * most)
}

/// TFLOP/s of a kernel at a problem, the fastest of ten, and the seconds of its first call, which compiles it.
fn speed(
    strategy: &Strategy,
    problem: &Problem,
    device: &Device,
    (format, dtype): (FloatDType, DType),
) -> Result<(f64, f64), String> {
    let [batches, m, n, k] = problem.size;
    let a = factor(device, [batches, m, k], problem.transposed[0], format);
    let b = factor(device, [batches, k, n], problem.transposed[1], format);
    let (client, shape) = (a.client.clone(), Shape::from([batches, m, n]));
    let out = empty_device_contiguous_dtype(client, a.device.clone(), shape, dtype);
    let right = product(&Strategy::Auto, &a, &b, &out);
    let once = || {
        let began = Instant::now();
        launch(strategy, &a, &b, &out)?;
        let done = cubecl::future::block_on(out.client.sync());
        done.map_err(|error| format!("{error:?}"))?;
        Ok::<_, String>(began.elapsed().as_secs_f64())
    };
    let first = once()?;
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        best = once()?.min(best);
    }
    if !product(strategy, &a, &b, &out).is_ok_and(|found| is_close(&found, &right)) {
        return Err("wrong".into());
    }
    Ok((2.0 * (batches * m * n * k) as f64 / best / 1e12, first))
}

fn main() -> std::io::Result<()> {
    #[cfg(feature = "cuda")]
    let device = Device::cuda(0);
    #[cfg(not(feature = "cuda"))]
    let device = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut out = std::io::stdout();
    for formats in [(FloatDType::BF16, DType::BF16), (FloatDType::F32, DType::F32)] {
        for (name, strategy) in strategies() {
            if !wanted.is_empty() && !wanted.iter().any(|one| one == name) {
                continue;
            }
            write!(out, "{:?} {name:28}", formats.1)?;
            for problem in &PROBLEMS {
                let measured = || speed(&strategy, problem, &device, formats);
                let found = catch_unwind(AssertUnwindSafe(measured));
                let found = match found.unwrap_or_else(|_| Err("panics".into())) {
                    Ok((speed, first)) => format!("{speed:.0} ({first:.1} s)"),
                    Err(error) => error.chars().take(40).collect(),
                };
                write!(out, "  {} {found}", problem.name)?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}
