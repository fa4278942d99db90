"""Models in other forms: graphs, ONNX files, 8 bits, and the files that others released."""
