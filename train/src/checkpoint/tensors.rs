//! Named tensors as safetensors, and back.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::graph::{Element, Tensor, TensorType};

/// The file's bytes.
pub(crate) fn write(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, String> {
    let view = |(name, tensor): (&String, &'_ Tensor)| -> Result<(String, (Dtype, Vec<usize>)), String> {
        let dtype = dtype(tensor.element()).ok_or_else(|| format!("{name}: safetensors has no {}", tensor.element()))?;
        Ok((name.clone(), (dtype, tensor.shape().to_vec())))
    };
    let mut views = Vec::with_capacity(tensors.len());
    for entry in tensors {
        let (name, (dtype, shape)) = view(entry)?;
        let made = TensorView::new(dtype, shape, entry.1.bytes()).map_err(|e| format!("{name}: {e}"))?;
        views.push((name, made));
    }
    // "pt" is what Hugging Face's loaders look for.
    let metadata = Some(std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]));
    safetensors::serialize(views, metadata).map_err(|e| e.to_string())
}

/// The tensors of a file's bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let tensor = |(name, view): (String, TensorView<'_>)| {
        let element = element(view.dtype()).ok_or_else(|| format!("{name}: {:?} is no element type of weights", view.dtype()))?;
        let kind = TensorType::new(element, view.shape().to_vec());
        let tensor = Tensor::from_bytes(kind, view.data().to_vec()).ok_or_else(|| format!("{name} is cut short"))?;
        Ok((name, tensor))
    };
    file.tensors().into_iter().map(tensor).collect()
}

const TYPES: [(Element, Dtype); 8] = [
    (Element::F32, Dtype::F32),
    (Element::F64, Dtype::F64),
    (Element::F16, Dtype::F16),
    (Element::I64, Dtype::I64),
    (Element::I32, Dtype::I32),
    (Element::I16, Dtype::I16),
    (Element::I8, Dtype::I8),
    (Element::U8, Dtype::U8),
];

fn dtype(element: Element) -> Option<Dtype> {
    TYPES.iter().find(|(e, _)| *e == element).map(|(_, dtype)| *dtype)
}

fn element(dtype: Dtype) -> Option<Element> {
    TYPES.iter().find(|(_, d)| *d == dtype).map(|(element, _)| *element)
}
