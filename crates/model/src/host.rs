//! Tensors between host and device. Vectors are `[1, n]` on the device, so that every parameter is
//! a matrix there.

use crate::gpt::Tensors;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use measure::Precision;
use state::{HostTensor, ParamId};
use std::collections::BTreeMap;

/// Copies tensors to a device.
pub fn to_device(tensors: &BTreeMap<ParamId, HostTensor>, device: &Device) -> Tensors {
    let on_device = |tensor: &HostTensor| {
        let dims = match tensor.dims[..] {
            [columns] => [1, columns],
            [rows, columns] => [rows, columns],
            _ => unreachable!("GPT-2 has vectors and matrices only"),
        };
        matrix(tensor.data.clone(), dims, device)
    };
    tensors.iter().map(|(id, tensor)| (*id, on_device(tensor))).collect()
}

/// Copies tensors to the host, with the dimensions that they have in checkpoints.
///
/// # Panics
/// When the device fails.
pub fn to_host(tensors: &Tensors, shape: &measure::GptShape) -> BTreeMap<ParamId, HostTensor> {
    tensors
        .iter()
        .map(|(id, tensor)| {
            (*id, HostTensor { dims: id.role.dims(shape), data: elements(tensor.clone()) })
        })
        .collect()
}

/// The elements of a tensor as f32, row by row.
///
/// # Panics
/// When the device fails.
pub fn elements<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("the device gives its tensors back")
}

/// The number format of matrix products.
pub fn compute_type(precision: Precision) -> FloatDType {
    match precision {
        Precision::F32 => FloatDType::F32,
        Precision::Bf16 => FloatDType::BF16,
    }
}

/// The product of two matrices, as models make it on their device.
pub fn product(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "cuda")]
    if a.device() != Device::flex() {
        return gpu::product(a, b);
    }
    a.matmul(b)
}

/// A matrix on a device, of elements row by row.
pub fn matrix(elements: Vec<f32>, dims: [usize; 2], device: &Device) -> Tensor<2> {
    let matrix = Tensor::from_data(TensorData::new(elements, dims), device);
    #[cfg(feature = "cuda")]
    if *device != Device::flex() {
        return gpu::contiguous(matrix);
    }
    matrix
}
