"""How models of training frameworks become ONNX files that are checked against their framework."""
