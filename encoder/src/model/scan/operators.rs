//! Which operators may appear, and whether a node's and an import's are among them.

use super::{ScanError, message::OPSET};

/// Operator domains that may appear; `""` and `ai.onnx` are the standard's two names for itself.
pub const DOMAINS: [&str; 3] = ["", "ai.onnx", "com.microsoft"];

/// Operators of `com.microsoft` that may appear: what Hugging Face's and ONNX Runtime's exporters, optimizers and quantizers
/// put into transformer and convolution encoders. All compute; none opens a file or calls foreign code.
pub const CONTRIB_OPERATORS: [&str; 61] = [
    "Attention",
    "BiasAdd",
    "BiasGelu",
    "BiasSoftmax",
    "BiasSplitGelu",
    "ConvTransposeWithDynamicPads",
    "DequantizeLinear",
    "DynamicQuantizeMatMul",
    "EmbedLayerNormalization",
    "ExpandDims",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "FusedMatMulActivation",
    "GatedRelativePositionBias",
    "GatherBlockQuantized",
    "GatherND",
    "Gelu",
    "GemmFastGelu",
    "GroupNorm",
    "GroupQueryAttention",
    "Inverse",
    "IsAllFinite",
    "MatMulBnb4",
    "MatMulFpQ4",
    "MatMulInteger16",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MulInteger",
    "MultiHeadAttention",
    "NhwcConv",
    "NhwcFusedConv",
    "NhwcMaxPool",
    "Pad",
    "PackedAttention",
    "PackedMultiHeadAttention",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearReduceMean",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QuantizeLinear",
    "QuickGelu",
    "ReduceSumInteger",
    "RelativePositionBias",
    "RemovePadding",
    "RestorePadding",
    "RotaryEmbedding",
    "SkipGroupNorm",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

pub(super) fn operator(domain: &str, operator: &str) -> Result<(), ScanError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let named = !operator.is_empty() && operator.len() <= 64 && operator.bytes().all(plain);
    let known = DOMAINS.contains(&domain) && (domain != "com.microsoft" || CONTRIB_OPERATORS.contains(&operator));
    if named && known {
        return Ok(());
    }
    // Names from the file go into a message: no longer than a line, nothing that moves the cursor.
    let shown = |text: &str| text.chars().take(64).flat_map(char::escape_default).collect();
    Err(ScanError::Operator { operator: shown(operator), domain: shown(domain) })
}

/// An import without a node that uses it is harmless (optimizers leave many), so only the form is checked.
pub(super) fn opset(bytes: &[u8]) -> Result<(), ScanError> {
    for field in OPSET.read(bytes)? {
        match field.number {
            1 => drop(OPSET.text(&field)?),
            _ => drop(OPSET.integer(&field)?),
        }
    }
    Ok(())
}
