//! Tensors of the kernels: contiguous, row by row.

use burn::tensor::Tensor;
use burn_backend::{DType, Shape, TensorMetadata};
use burn_cubecl::CubeBackend;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems, MatmulSetupError};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy as Levels;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

/// Units of a cube in kernels with one unit for each element.
pub const UNITS: u32 = 256;

/// A tensor's buffer and dimensions.
///
/// # Panics
/// Where the tensor is not on a device of CubeCL.
pub fn cube<const D: usize>(x: Tensor<D>) -> CubeTensor {
    x.try_into_primitive::<CubeBackend>().expect("the network is on a device of CubeCL")
}

/// The other way.
pub fn tensor<const D: usize>(x: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<CubeBackend>(x)
}

/// The elements, in host memory.
///
/// # Panics
/// Where the device fails.
pub fn to_host(x: CubeTensor) -> Vec<f32> {
    let n = x.shape().num_elements();
    let flat = tensor::<1>(reshaped(&x, &[n]));
    flat.try_into_vec_as().expect("the device gives its tensors back")
}

/// A new tensor on the device of another, with arbitrary elements.
///
/// # Panics
/// Where the kernels' indices, of 32 bits, do not reach to its end.
pub fn empty(like: &CubeTensor, dims: &[usize], dtype: DType) -> CubeTensor {
    let n = dims.iter().product::<usize>();
    assert!(
        u32::try_from(n).is_ok(),
        "{dims:?} are {n} numbers, more than 2^32: a smaller batch.micro_batch makes fewer"
    );
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::from(dims.to_vec()), dtype)
}

/// A new tensor of unsigned integers.
pub fn integers(like: &CubeTensor, values: &[u32]) -> CubeTensor {
    let handle = like.client.create_from_slice(u32::as_bytes(values));
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, Shape::from([values.len()]), handle, DType::U32)
}

/// The same elements under other dimensions.
pub fn reshaped(x: &CubeTensor, dims: &[usize]) -> CubeTensor {
    assert!(x.is_contiguous(), "kernels read tensors row by row");
    let handle = x.handle.clone();
    let shape = Shape::from(dims.to_vec());
    CubeTensor::new_contiguous(x.client.clone(), x.device.clone(), shape, handle, x.dtype)
}

/// The last two dimensions swapped.
pub fn transposed(mut x: CubeTensor) -> CubeTensor {
    let rank = x.rank();
    x.meta.swap(rank - 1, rank - 2);
    x
}

/// Products of matrices over the last two dimensions.
pub fn product(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let rank = a.rank();
    let mut dims: Vec<usize> = a.shape().iter().copied().collect();
    dims[rank - 1] = b.shape()[rank - 1];
    let out = empty(&a, &dims, a.dtype);
    product_into(out, a, b)
}

/// The same, into a tensor.
///
/// # Panics
/// Where no kernel of CubeCL takes the shapes.
pub fn product_into(out: CubeTensor, a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let strategies = if fits_tma(&a) && fits_tma(&b) { &STRATEGIES[..] } else { &STRATEGIES[1..] };
    let mut failed = None;
    for strategy in strategies {
        match launch_product(&strategy(), &out, &a, &b) {
            Ok(()) => return out,
            Err(error) => failed = Some(error),
        }
    }
    panic!("CubeCL has a kernel for products of any matrices: {failed:?}");
}

/// CubeCL's kernels for products, the fastest first: with a GPU's tensor cores and its engine for copies (TMA), with
/// tensor cores alone, with what there is. None is chosen by trying them out: that would take a minute for each shape, and
/// give other bits where another one wins.
const STRATEGIES: [fn() -> Strategy; 3] = [
    || Levels::SpecializedTmaMma(BlueprintStrategy::default()).into(),
    || Levels::SimpleCyclicMma(BlueprintStrategy::default()).into(),
    || Strategy::Auto,
];

/// Whether rows begin where TMA can read, at multiples of 16 bytes.
fn fits_tma(x: &CubeTensor) -> bool {
    let size = x.dtype.size();
    x.meta.strides().iter().all(|stride| *stride == 1 || (stride * size).is_multiple_of(16))
}

/// A product by a kernel, into a tensor.
///
/// # Errors
/// The kernel does not take the shapes, or needs what the device has not.
pub fn launch_product(
    strategy: &Strategy,
    out: &CubeTensor,
    a: &CubeTensor,
    b: &CubeTensor,
) -> Result<(), MatmulSetupError> {
    let format = elem(a.dtype);
    let globals = MatmulGlobalElems { lhs: format, rhs: format, out: format };
    let factor = |x: &CubeTensor| InputBinding::new(x.clone().binding(), format);
    let (client, into) = (&out.client, out.clone().binding());
    launch_ref(
        strategy,
        client,
        factor(a),
        factor(b),
        into,
        &mut MatmulElems::from_globals(&globals),
    )
}

/// Some rows of a matrix, in the same buffer.
pub fn rows(x: &CubeTensor, from: usize, n: usize) -> CubeTensor {
    let [all, width] = x.shape().dims::<2>();
    let bytes = |rows: usize| (rows * width * x.dtype.size()) as u64;
    let mut part = reshaped(x, &[n, width]);
    let handle = part.handle.clone().offset_start(bytes(from));
    part.handle = handle.offset_end(bytes(all - from - n));
    part
}

/// One unit for each of `n` elements.
pub fn units(n: usize) -> (CubeCount, CubeDim) {
    (CubeCount::Static(n.div_ceil(UNITS as usize) as u32, 1, 1), CubeDim::new_1d(UNITS))
}

/// One plane (a warp) for each of `n` rows.
pub fn planes(client: &Client, n: usize) -> (CubeCount, CubeDim) {
    let plane = client.properties().hardware.plane_size_max;
    let in_a_cube = UNITS / plane;
    let cubes = n.div_ceil(in_a_cube as usize) as u32;
    (CubeCount::Static(cubes, 1, 1), CubeDim::new_2d(plane, in_a_cube))
}

/// The row of a plane in a grid of [`planes`].
#[cube]
pub fn row_of_plane() -> usize {
    CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize
}

#[cube(launch)]
fn copy_kernel<E: Float>(
    x: &[E],
    out: &mut [E],
    width: usize,
    stride: usize,
    #[define(E)] _format: ElemType,
) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = x[ABSOLUTE_POS / width * stride + ABSOLUTE_POS % width];
    }
}

#[cube(launch)]
fn narrow_kernel<E: Float>(x: &[f32], out: &mut [E], #[define(E)] _format: ElemType) {
    if ABSOLUTE_POS < out.len() {
        if ABSOLUTE_POS < x.len() {
            out[ABSOLUTE_POS] = E::cast_from(x[ABSOLUTE_POS]);
        } else {
            out[ABSOLUTE_POS] = E::cast_from(0.0f32);
        }
    }
}

/// A matrix of f32 in another format, with rows of zeros after it up to a number of rows.
pub fn narrowed(x: &CubeTensor, n_rows: usize, dtype: DType) -> CubeTensor {
    let [rows, width] = x.shape().dims::<2>();
    if dtype == x.dtype && n_rows == rows {
        return x.clone();
    }
    let out = empty(x, &[n_rows, width], dtype);
    let (count, dim) = units(n_rows * width);
    let (from, into) = (x.clone().into_buffer_arg(), out.clone().into_buffer_arg());
    narrow_kernel::launch(&x.client, count, dim, from, into, elem(dtype));
    out
}

#[cube(launch)]
fn zero_kernel(out: &mut [f32]) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = 0.0f32;
    }
}

/// A matrix of zeros.
pub fn zeros(like: &CubeTensor, dims: [usize; 2]) -> CubeTensor {
    let out = empty(like, &dims, DType::F32);
    let (count, dim) = units(dims[0] * dims[1]);
    zero_kernel::launch(&like.client, count, dim, out.clone().into_buffer_arg());
    out
}

/// A matrix row by row without gaps between its rows, in which devices may lay tensors out.
pub fn contiguous(x: CubeTensor) -> CubeTensor {
    if x.is_contiguous() && x.is_contiguous_buffer() {
        return x;
    }
    let dims = x.shape().dims::<2>();
    let out = empty(&x, &dims, x.dtype);
    let (count, dim) = units(dims[0] * dims[1]);
    let stride = x.meta.strides()[0];
    let (client, dtype) = (x.client.clone(), elem(x.dtype));
    let (from, into) = (x.into_buffer_arg(), out.clone().into_buffer_arg());
    copy_kernel::launch(&client, count, dim, from, into, dims[1], stride, dtype);
    out
}

/// CubeCL's name for a number format.
pub fn elem(dtype: DType) -> ElemType {
    burn_backend::cubecl::dtype_to_elem_type(dtype)
}
